"""What the agents of a finished run tell of the samples that it learned from, one attack a file."""
