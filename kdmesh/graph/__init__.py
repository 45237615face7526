"""The graph: strategies draw it, stages and steps are found in it."""
