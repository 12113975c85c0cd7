"""What a job lost: errors by layer and module, divergence by slice."""
