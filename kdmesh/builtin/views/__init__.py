"""Built-in views (augmentations): one thing, one file."""
