"""Plug-ins: algorithms, wrappers, datasets and backbones from modules, packages and forks of DomainBed."""
