"""A tree in which nothing is left that ``torch.load(weights_only=True)`` refuses. Pure; no name is imported."""
