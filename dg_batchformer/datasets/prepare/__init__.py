"""Prepare datasets: download them, or convert given archives and folders, to the layout that the loaders read."""
