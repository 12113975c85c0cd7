"""Recipes: what is quantized, how, and with which statistics."""
