"""Licences of what a student learns from: their names, the clauses that were read at their source, what follows."""
