"""Two jobs or more side by side: settings, coverage, errors, divergence by slice."""
