"""Weights in their number formats, and the files that hold them."""
