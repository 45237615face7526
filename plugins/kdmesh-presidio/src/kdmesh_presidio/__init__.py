"""Recognisers of personal data for kdmesh, by presidio-analyzer."""
