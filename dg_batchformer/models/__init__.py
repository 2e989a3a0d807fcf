"""Trained models read back: load, predict, soup."""
