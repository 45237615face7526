"""Preference optimisation for kdmesh: objectives that compare the two answers of a pair, and rules that make them."""
