"""Detectors: architectures, weights, heads, losses, ONNX."""
