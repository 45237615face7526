"""A fragment: ops of one host between two exchanges. The engine cuts steps into them, hosts run them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from kdmesh.graph.steps import Op


@dataclass
class Fragment:
    """``needs``: the numbers of the fragments whose exports it reads; ``complete``: the steps that end in it."""

    host: str
    stage: str
    level: int
    steps: list[tuple[int, list[Op] | None]] = field(default_factory=list)
    exports: dict[int, list[Op]] = field(default_factory=dict)
    complete: Container[int] = ()
    needs: list[int] = field(default_factory=list)

    def work(self) -> Iterator[tuple[int, list[Op] | None]]:
        """The steps and their ops, in order; None means all of the host's."""
        return iter(self.steps)
