"""Training: one run, its loop, data, evaluation and checkpoints. The only place that knows the order of things."""
