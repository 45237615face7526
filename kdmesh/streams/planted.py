"""Canaries that were planted in a table: samples of nobody, by which an audit tells what models learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.streams.texts import Sample

KEPT, CHANGED, DROPPED = "kept", "changed", "dropped"


@dataclass(frozen=True)
class Canary:
    """One of them: ``x`` as it was made, before anything was taken out of it, and its class, where there are any.

    ``inside``: whether the coin put it in; ``rows``: of the table, where it then stands; ``became``: `kept`, or
    `changed` or `dropped` by what looks for personal data.
    """

    number: int
    x: Sample | Tensor
    label: int | None
    secret: str
    inside: bool
    rows: tuple[int, ...]
    became: str


@dataclass(frozen=True)
class Planted:
    """All of them, those that are out too."""

    kind: str
    times: int
    canaries: tuple[Canary, ...]

    @property
    def rows(self) -> Tensor:
        """Where they stand in the table, ``[n]`` int64."""
        return torch.tensor([row for one in self.canaries for row in one.rows], dtype=torch.int64)

    def counts(self) -> dict[str, Any]:
        """How many there are, as plain data."""
        inside = [one for one in self.canaries if one.inside]
        became = {name: sum(one.became == name for one in inside) for name in (KEPT, CHANGED, DROPPED)}
        return {"kind": self.kind, "canaries": len(self.canaries), "in": len(inside), "times": self.times, **became}

    def told(self) -> str:
        """The same as a line."""
        known = self.counts()
        often = "once" if self.times == 1 else f"{self.times:,} times each"
        lost = [f"{known[name]:,} {name}" for name in (CHANGED, DROPPED) if known[name]]
        taken = f"; by what looks for personal data {' and '.join(lost)}" if lost else ""
        return f"canaries: of {known['canaries']:,} made up, {known['in']:,} are planted in train, {often}{taken}"

    def lines(self) -> list[dict[str, Any]]:
        """A line of the run's file for each."""
        return [
            {
                "canary": one.number,
                "in": one.inside,
                **({"secret": one.secret} if one.secret else {}),
                **({"label": one.label} if one.label is not None else {}),
                "rows": list(one.rows),
                **({"became": one.became} if one.inside else {}),
            }
            for one in self.canaries
        ]
