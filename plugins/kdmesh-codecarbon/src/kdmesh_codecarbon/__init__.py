"""Energy of a run, as codecarbon estimates it."""
