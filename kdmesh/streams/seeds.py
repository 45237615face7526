"""One way to make a seed: hash the run's seed with the names of what is random."""

from __future__ import annotations

from hashlib import blake2b
from operator import index

MASK = 2**63 - 1
STRIDE = 0x9E3779B97F4A7C15  # odd: seeds of successive steps never repeat within 2**63


def mix(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part, their types and their order, and on nothing else.

    ``mix(seed, purpose, names...)`` is the same in every process and on every platform. Each part is written with its
    type and length, so that ``("ab", "c")`` and ``("a", "bc")`` differ. A part that is neither text nor a whole number
    is a TypeError.
    """
    digest = blake2b(digest_size=8)
    for part in parts:
        kind, text = ("s", part) if isinstance(part, str) else ("i", str(index(part)))
        data = text.encode()
        digest.update(f"{kind}{len(data)}:".encode() + data)
    return int.from_bytes(digest.digest(), "big") >> 1


def at_step(seed: int, step: int) -> int:
    """The seed of a step, from that of a phase; cheaper than :func:`mix`."""
    return (seed ^ (step * STRIDE)) & MASK
