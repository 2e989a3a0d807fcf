"""Plug-ins: unmodified algorithms from third-party modules, packages and a DomainBed checkout."""
