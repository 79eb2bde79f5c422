"""From a picture of any size to what a graph takes, and back: tiles, borders, contexts, sizes, streams of frames."""
