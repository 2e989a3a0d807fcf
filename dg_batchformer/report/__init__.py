"""The report: one self-contained HTML page per sweep, with its figures."""
