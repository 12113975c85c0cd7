"""How data sets spell a conversation and its labels, and what is made of it."""
