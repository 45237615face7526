"""Built-in tasks, a file each."""
