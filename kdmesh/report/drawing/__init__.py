"""A mesh's topology as a picture: in the terminal, as SVG, PNG, Mermaid or DOT."""
