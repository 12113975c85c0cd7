"""All that imports torch."""

from workers.engine.library_output import hush

# First of all: the libraries say where they write to, and how much, when they are imported.
hush()
