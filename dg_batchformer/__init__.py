"""Domain generalization from a sweep file to a table, with BatchFormer and SWAD around any algorithm."""

__version__ = "0.1.0"
