"""Calibration sets: composing, rendering, counting, building."""
