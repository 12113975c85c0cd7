"""Jobs: what is run, in which state it is, and what was heard of it."""
