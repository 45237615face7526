"""Samples that are to be forgotten: every place that one reached, and what can be taken out of these."""
