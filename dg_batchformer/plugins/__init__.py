"""Plug-ins: algorithms of other people's modules and packages, and of a DomainBed checkout, as they are."""
