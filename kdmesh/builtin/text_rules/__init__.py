"""The built-in rules over texts, one a file."""
