"""The training loop: steps, their state, and what surrounds them. It knows no task."""
