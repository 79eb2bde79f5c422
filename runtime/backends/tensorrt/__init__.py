"""Runs engines of TensorRT and TensorRT-RTX on a CUDA device."""
