"""BatchFormer's own pictures: who attends to whom, where gradients flow, and what becomes of the features."""
