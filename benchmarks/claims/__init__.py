"""The claims on digits, one experiment a file: ``figures(seed)`` runs meshes and returns percentages by name."""
