"""AWQ's scale search and smoothing, made fit for mixtures of experts."""
