"""What a text is: its script, its spoken or its programming language."""
