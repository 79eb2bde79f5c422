"""Opens the model that a caller names: finds its files, and chooses precision and backend."""
