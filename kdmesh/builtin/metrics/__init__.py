"""Built-in metrics, a file each."""
