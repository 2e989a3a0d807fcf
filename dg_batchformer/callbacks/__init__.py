"""Callbacks: what follows a run while it trains, TensorBoard, W&B and MLflow among them."""
