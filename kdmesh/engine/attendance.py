"""Who takes part in a round, where not all parties need to: `participation` of a mesh.

Who is not there does nothing in a round. One who was lost goes back to its last whole round, and so do all others, to
make the round that is under way again without it: so a record of who took part says all that a simulation needs to
have the same bits. One who comes back does so where a round begins.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.events import Note
from kdmesh.engine.position import Paused
from kdmesh.errors import MeshError, RunFailed
from kdmesh.files import read_json
from kdmesh.graph.participation import drawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kdmesh.backends._base import Backend
    from kdmesh.engine.events import Events
    from kdmesh.spec import MeshSpec

AGAIN = 0.2  # seconds between two looks at who is there


class Regroup(Exception):
    """Somebody has come back: all hosts are opened anew, and go on from the checkpoint that was just written."""


class Attendance:
    """Decides who takes part, by whom the file draws and who is there.

    ``patience``: seconds that the end of a run waits for parties; ``pausing``: whether the run is asked to stand still.
    """

    def __init__(
        self, spec: MeshSpec, backend: Backend, events: Events, patience: float, pausing: Callable[[], bool]
    ) -> None:
        self.spec, self.asked, self.backend, self.events = spec, spec.participation, backend, events
        self.patience, self.pausing = patience, pausing
        self.unseen = set[str]()  # who was not there yet, since the stage began: it begins as the file says

    def begin(self, number: int) -> list[str]:
        """Wait until a round may begin; who takes part. All others are absent from now on."""
        assert self.asked is not None
        names, backend, said = drawn(self.spec, number), self.backend, False
        replayed = self.asked.attendance is not None
        while True:
            here = backend.willing(names, number)
            if backend.unopened.intersection(here):
                raise Regroup
            if len(here) >= (len(names) if replayed else self.asked.quorum):
                backend.absent = frozenset(self.spec.parties) - frozenset(here)
                return here
            if self.pausing():
                raise Paused
            if not said:
                said = True
                who = ", ".join(here) or "nobody"
                text = f"round {number} waits: {self.asked.quorum} of {', '.join(names)} are to take part; so far {who}"
                self.events.emit(Note(text))
            time.sleep(AGAIN)

    def everyone(self) -> None:
        """Wait for all who were there: what is measured and saved at the end is of these. RunFailed for who does not
        come back. Who never came is absent from now on.
        """
        if self.asked is None:
            return
        backend, until = self.backend, time.monotonic() + self.patience
        missing = sorted(backend.unopened)
        if waited := [name for name in missing if name not in self.unseen]:
            self.events.emit(Note(f"waits for {', '.join(waited)}, whose agents are measured and saved at the end"))
        while missing:
            here = backend.willing(missing, 0)
            if {*waited} <= {*here}:
                if here:
                    raise Regroup
                break
            if self.pausing():
                raise Paused
            if time.monotonic() > until:
                what = f"{', '.join(waited)} did not come back within {self.patience:g} s"
                raise RunFailed(what, where="parties", instead="kdmesh resume, once they are there")
            time.sleep(AGAIN)
        backend.absent = frozenset(missing)


def replayed(spec: MeshSpec, root: Path) -> MeshSpec:
    """A mesh in which those take part in each round who did in a run, by its folder."""
    summary: Any = read_json(root / "summary.json")
    rounds = summary.get("rounds", []) if isinstance(summary, dict) else []
    found = [one.get("attended") for one in rounds if isinstance(one, dict)]
    if not found or not all(isinstance(names, list) and names for names in found):
        what = "it has no summary.json that says who took part in each round"
        raise MeshError(what, file=str(root), where="--attendance", instead="the folder of a run with `participation`")
    asked = spec.participation
    if asked is None:
        raise MeshError("the mesh has no `participation`", where="--attendance", instead="the mesh of that run")
    changes = {"attendance": found, "fraction": 1.0, "quorum": 1, "timeout": None}
    return spec.model_copy(update={"participation": asked.model_copy(update=changes)})
