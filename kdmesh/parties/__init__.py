"""Parties in processes of their own: who joins, what is asked of them, and what leaves them."""
