"""Figures of the report: a tidy DataFrame for each, and a function that draws it as a matplotlib Figure."""
