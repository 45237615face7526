"""Built-in models: one thing, one file."""
