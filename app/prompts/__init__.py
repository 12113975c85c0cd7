"""Prompts: the words put before a row, run in a sandbox, and the values they name."""
