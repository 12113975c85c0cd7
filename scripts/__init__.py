"""What makes the files under ``demo/``; nothing here is imported by the product."""
