"""Sweeps: settings are searched by validation, then what was chosen is tested once."""
