"""Relations between samples and between tokens: objectives for kdmesh."""
