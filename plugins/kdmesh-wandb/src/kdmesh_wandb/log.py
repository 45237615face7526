"""One run of W&B, which several of a process may be at a time. It imports no torch."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from kdmesh.errors import MeshError
from kdmesh.trackers import Tracker

from kdmesh_wandb.plugin import IDENTITY

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # before wandb is imported: it reports its errors to nobody
try:
    import wandb
except ImportError as error:
    raise MeshError(
        f"there is no W&B to log with ({error})",
        where="kdmesh-wandb",
        instead="pip install wandb, or set KDMESH_DISABLE_PLUGINS=kdmesh-wandb",
    ) from None


class Log(Tracker):
    """The history of one run, offline unless WANDB_MODE says otherwise, where WANDB_DIR says: by default ``./wandb``.

    It is not in the run's folder: W&B makes links to other places there, with which `kdmesh resume` takes no folder.
    Names are those of :class:`kdmesh.trackers.Tracker`, by ``step`` and by ``round``.
    """

    def __init__(self, run: Any) -> None:
        super().__init__(run)
        self._known: set[str] = set()  # keys whose axis is declared
        known = IDENTITY.read(run.folder) if run.resumed else None
        identity = known[0] if known else secrets.token_hex(6)
        IDENTITY.write(run.folder, identity, os.environ["WANDB_PROJECT"])
        self._run = wandb.init(
            project=os.environ["WANDB_PROJECT"],
            name=run.part,
            group=os.environ.get("WANDB_RUN_GROUP") or run.mesh.name,
            id=identity,
            resume="allow" if run.resumed and _mode() == "online" else None,
            dir=os.environ.get("WANDB_DIR") or None,
            mode=_mode(),
            config={"mesh": run.mesh.dump(), **self.about},
            reinit="create_new",  # another run of this process may be open, of kdmesh or not
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_stats=True
            ),
        )

    def log(self, numbers: dict[str, float], at: int, axis: str) -> None:
        """Log numbers by name, each by its axis."""
        for key in numbers.keys() - self._known:
            self._run.define_metric(key.replace("\\", "_"), step_metric=axis)
            self._known.add(key)
        self._run.log({**numbers, axis: at})

    def summarise(self, numbers: dict[str, float], summary: Mapping[str, Any]) -> None:
        """Put final figures into the run's summary."""
        self._run.summary.update({**numbers, **{name: summary[name] for name in ("best_teacher", "notes")}})

    def close(self, end: str, error: str) -> None:
        """End the run: exit code 130 where somebody interrupted it, 1 where it failed."""
        if error:
            self._run.summary["error"] = error
        self._run.finish(exit_code={"finished": 0, "failed": 1, "interrupted": 130}[end])


def _mode() -> Any:
    """Offline, unless WANDB_MODE says otherwise."""
    return os.environ.get("WANDB_MODE") or "offline"
