"""Sweeps: which runs a declaration means, what is due, and how runs are started. Imports no training."""
