"""Quantized models as checkpoints that serve, and whether they are right."""
