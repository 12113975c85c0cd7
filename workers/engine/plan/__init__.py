"""What a recipe does to a model, read from its module tree."""
