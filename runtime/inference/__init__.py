"""Prepares pictures of any size for a graph and takes its results back: tiles, borders, contexts, working sizes, streams."""
