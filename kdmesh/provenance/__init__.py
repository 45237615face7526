"""Where a run's models come from: in cards, as a bill of materials, as a graph over runs, and signed."""
