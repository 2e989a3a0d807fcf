"""Specifications of runs and sweeps: names, environments, protocols, hparams, expected results."""
