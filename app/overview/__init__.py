"""The overview: what is running, is it good enough, what can be done next."""
