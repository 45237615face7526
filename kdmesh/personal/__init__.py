"""Personal data in samples: found by recognisers, and taken out before any model sees them."""
