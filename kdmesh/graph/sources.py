"""What streams take their samples from, by the file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdmesh.spec import MeshSpec


def below(spec: MeshSpec, name: str) -> list[str]:
    """The streams that a stream takes its samples, prompts or batches from, down to splits or to those met before."""
    found: list[str] = []
    waiting = [name]
    while waiting:
        stream = spec.streams.get(waiting.pop(0))
        if stream is not None:
            above = [stream.prompts or stream.of, *([] if stream.mix is None else [stream.mix.of])]
            new = [one for one in above if one not in found]
            found += new
            waiting += new
    return found
