"""From a checkpoint to a model package. Submodules are imported on use: they need onnx, and some of them torch."""
