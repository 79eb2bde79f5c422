"""From an ONNX graph to TensorRT engines: build, cache, read back, record."""
