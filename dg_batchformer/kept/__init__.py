"""What a trained run has kept, read back: its model, predictions with it, and soups of several."""
