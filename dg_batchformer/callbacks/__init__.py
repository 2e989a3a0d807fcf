"""Callbacks that follow a run while it trains, such as TensorBoard, W&B and MLflow."""
