"""A sweep of DomainBed, read back from its folder of runs: ``<sweep>/<md5>/results.jsonl``."""
