"""Agents and the host that holds them."""
