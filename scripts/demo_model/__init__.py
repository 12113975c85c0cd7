"""How the bundled demo model is made: tokenizer, architecture, batches, optimizer, measurements."""
