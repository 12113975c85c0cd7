"""All that imports torch."""

# First of all: the libraries read how loud they may be when they are imported.
import workers.engine.library_output  # noqa: F401
