"""What a calibration set is labelled with, against what is in it."""
