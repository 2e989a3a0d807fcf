"""Kept models: load them, predict with them, average them into soups."""
