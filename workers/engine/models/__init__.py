"""Base models: where they come from, what their tree says, how their weights are loaded."""
