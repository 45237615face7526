"""What observers are told of a run."""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.spec import MeshSpec


@dataclass(frozen=True, eq=False)
class RunInfo:
    """One seed of one mesh as it runs. All hooks of a plugin are given the same object, so it may be a key.

    Attributes:
        mesh: the long form, every strategy drawn.
        seed: the run seed.
        backend: where it runs, `inline` or `ray`.
        folder: where its files are; None if it writes none.
        hosts: the agents of each host, as the run began.
        roles: what each agent is: `teacher`, `student`, `peer`, `assistant`, `average` or `alone`.
        resumed: whether it goes on from what an interrupted or failed run has left in its folder.
        part: what it is of the command that trains it: `seed 0`, or `seed 0, s alone` of a control.

    Everything here is a copy: what a plugin changes in it the run does not see.
    """

    mesh: MeshSpec
    seed: int
    backend: str
    folder: Path | None
    hosts: dict[str, list[str]]
    roles: dict[str, str]
    _plan: Any = field(repr=False)
    resumed: bool = False
    part: str = ""

    @property
    def plan(self) -> Any:
        """The planner's own object, which plugins of old may read. Deprecated, and gone in 0.3: use ``mesh``."""
        what = "RunInfo.plan goes away in kdmesh 0.3: read RunInfo.mesh, the long form"
        warnings.warn(what, DeprecationWarning, stacklevel=2)
        return deepcopy(self._plan)
