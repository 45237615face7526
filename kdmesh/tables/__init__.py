"""Rows of files and samples out of them: what data sets and trained agents read alike."""
