"""The engine: stages, programs, chunks of steps, and what is written of them."""
