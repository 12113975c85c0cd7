"""Which experts a calibration set reaches."""
