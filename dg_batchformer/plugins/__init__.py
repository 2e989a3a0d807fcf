"""Plug-ins: unmodified algorithms from third-party modules, packages, and checkouts of DomainBed and its forks."""
