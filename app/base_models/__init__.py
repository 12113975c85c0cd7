"""Base models: what is quantized."""
