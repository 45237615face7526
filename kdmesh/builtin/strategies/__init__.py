"""Built-in strategies: one thing, one file."""
