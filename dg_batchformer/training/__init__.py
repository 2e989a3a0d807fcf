"""Training of one run: data loading, the loop, evaluation, records and checkpoints."""
