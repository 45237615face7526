"""Built-in objectives: one thing, one file."""
