"""Tables of a sweep, rendered as text, LaTeX, Markdown, HTML, CSV and JSON, beside published numbers."""
