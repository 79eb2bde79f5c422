"""Rewrites and analyses of ONNX graphs, each in memory and without running anything."""
