"""The engine: stages, programs, stretches, and what is written of them."""
