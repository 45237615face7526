"""What observers are told of a run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.spec import MeshSpec


@dataclass(frozen=True, eq=False)
class RunInfo:
    """One seed of one mesh as it runs. The same object is given to every observer hook of a run, so it may be a key.

    Attributes:
        mesh: the long form, every strategy drawn.
        seed: the run seed.
        backend: where it runs, `inline` or `ray`.
        folder: where its files are; None if it writes none.
        hosts: the agents of each host, as the run began.
        roles: what each agent is: `teacher`, `student`, `peer`, `assistant`, `average` or `alone`.
    """

    mesh: MeshSpec
    seed: int
    backend: str
    folder: Path | None
    hosts: dict[str, list[str]]
    roles: dict[str, str]
    _plan: Any = field(repr=False)

    @property
    def plan(self) -> Any:
        """The planner's own object, which plugins written before 0.2 may read. Deprecated: use ``mesh``."""
        warnings.warn("RunInfo.plan goes away: read RunInfo.mesh, the long form", DeprecationWarning, stacklevel=2)
        return self._plan
