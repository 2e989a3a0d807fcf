"""Wrappers, which modify any algorithm: one file each, registered automatically."""
