"""The report: one page that needs nothing else. The only part of ``report`` that loads matplotlib and Jinja2."""
