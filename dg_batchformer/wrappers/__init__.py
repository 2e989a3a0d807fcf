"""Wrappers: an algorithm around an algorithm, one file each, registered by being here."""
