"""Built-in consensus: one thing, one file."""
