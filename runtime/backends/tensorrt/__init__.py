"""TensorRT and TensorRT-RTX: engines on a CUDA device."""
