"""Checkpoints: what a job exported, to look at and to download."""
