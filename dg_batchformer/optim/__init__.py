"""How networks are optimized: optimizer, parameter groups, learning-rate schedule, gradient clipping."""
