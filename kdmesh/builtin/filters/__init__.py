"""The built-in filters, one a file."""
