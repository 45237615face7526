"""What the built-in samplers are called; imports none of them."""

from __future__ import annotations

from kdmesh.offers import SamplerOffer

SAMPLERS = [
    SamplerOffer("grid", "kdmesh.builtin.samplers.grid:Grid", summary="every combination of the values"),
    SamplerOffer(
        "random",
        "kdmesh.builtin.samplers.random:Uniform",
        summary="points drawn at random",
        paper="https://www.jmlr.org/papers/v13/bergstra12a.html",
    ),
]
