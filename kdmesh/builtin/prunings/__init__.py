"""Built-in rules by which weights are taken out of a model before it trains, a file each."""
