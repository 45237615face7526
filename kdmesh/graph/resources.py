"""What there is to run on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """What there is: of everything, and of one node. Bytes of memory; infinite where it is not known."""

    cpus: int
    gpus: float = 0
    memory: float = float("inf")
    node_cpus: int = 0  # 0: one node has it all
    node_memory: float = float("inf")
