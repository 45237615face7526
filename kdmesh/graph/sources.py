"""What streams take their samples from, by the file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdmesh.spec import MeshSpec


def below(spec: MeshSpec, name: str) -> list[str]:
    """The streams that a stream takes its samples or prompts from, down to a split or to one met before."""
    found: list[str] = []
    while (stream := spec.streams.get(name)) is not None:
        name = stream.prompts or stream.of
        if name in found:
            break
        found.append(name)
    return found
