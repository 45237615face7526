"""What may be released of private data, one mechanism in a file. There is none for logits: nothing bounds them."""
