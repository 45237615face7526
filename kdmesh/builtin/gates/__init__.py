"""Built-in gates, one a file."""
