"""Recognisers of personal data, one in a file."""
