"""What streams take their samples from, by the file alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdmesh.spec import MeshSpec


def below(spec: MeshSpec, name: str) -> list[str]:
    """The streams that a stream takes its samples, prompts, batches or read texts from, down to splits or to those met
    before."""
    found: list[str] = []
    waiting = [name]
    while waiting:
        stream = spec.streams.get(waiting.pop(0))
        if stream is not None:
            above = [stream.prompts or stream.of, *([] if stream.mix is None else [stream.mix.of])]
            above += stream.made_of.values()
            new = [one for one in above if one not in found]
            found += new
            waiting += new
    return found


def written_before(spec: MeshSpec, name: str) -> list[str]:
    """The streams that are read to write this one, also through others, in the order in which they are written."""
    found: list[str] = []
    stream = spec.streams.get(name)
    for other in stream.made_of.values() if stream is not None else ():
        found += [one for one in (*written_before(spec, other), other) if one not in found]
    return found
