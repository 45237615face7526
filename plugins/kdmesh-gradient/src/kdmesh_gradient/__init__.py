"""Consensus in gradient space: AEKD."""
