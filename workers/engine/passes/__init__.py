"""Forward passes of a whole model over many rows, and what is read off them."""
