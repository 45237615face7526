"""What makes a model smaller: what is pruned before it trains, and numbers that it is rounded to."""
