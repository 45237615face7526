"""What is known of a mesh, its data and its models before a run."""
