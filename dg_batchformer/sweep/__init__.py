"""Sweeps: expand a sweep file to runs, plan which to start, and launch them. Does not import training."""
