"""Figures of the report, one file each: what is drawn, then how."""
