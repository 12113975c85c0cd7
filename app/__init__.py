"""Calibrant's web process and its pure heart. Nothing in here imports torch."""
