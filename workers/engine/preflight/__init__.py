"""What a job will do and need, and whether it can."""
