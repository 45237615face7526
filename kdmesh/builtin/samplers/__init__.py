"""Built-in samplers of sweeps."""
