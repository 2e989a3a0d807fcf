"""Tables of a sweep, with published results, rendered as text, LaTeX, Markdown, HTML, CSV and JSON."""
