"""Kinds of signal: what an agent sends."""
