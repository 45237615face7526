"""Built-in datasets: one thing, one file."""
