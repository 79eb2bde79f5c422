"""From what a caller names to an open model: which file, which precision, which backend."""
