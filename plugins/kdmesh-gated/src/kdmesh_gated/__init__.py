"""Trained consensus over the branches of one network: ONE and OKDDip."""
