"""Pictures that stay on the GPU: arrays of other libraries in, arrays for other libraries out, no copy through the host."""
