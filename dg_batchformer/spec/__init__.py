"""What is asked: runs, sweeps, names, environments, protocols, expected results."""
