"""The rows a step runs on, and their batches."""
