"""A conversation as a model sees it: its chat template, its tokenizer, where a row is cut."""
