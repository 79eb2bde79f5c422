"""A static page that runs models on the visitor's device, with ONNX Runtime Web."""
