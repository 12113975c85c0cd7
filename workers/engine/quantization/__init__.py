"""Quantization layer by layer, resumable."""
