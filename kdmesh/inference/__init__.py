"""Trained agents at work: their folders are asked of files and values as a user has them, and measured on these."""
