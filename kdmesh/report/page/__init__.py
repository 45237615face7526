"""The page of a run: one HTML file that opens from disk, made of what stands in the run's folder."""
