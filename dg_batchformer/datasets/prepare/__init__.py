"""Datasets made ready: fetched, or taken from archives and folders that people have, into what the loaders read."""
