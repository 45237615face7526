"""One run of W&B, which several of a process may be at a time. It imports no torch."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from kdmesh.errors import MeshError

from kdmesh_wandb import kept

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # before wandb is imported: it reports its errors to nobody
try:
    import wandb
except ImportError as error:
    raise MeshError(
        f"there is no W&B to log with ({error})",
        where="kdmesh-wandb",
        instead="pip install wandb, or set KDMESH_DISABLE_PLUGINS=kdmesh-wandb",
    ) from None


class Log:
    """The history of one run, offline unless WANDB_MODE says otherwise, where WANDB_DIR says: by default ``./wandb``.

    It is not in the run's folder: W&B makes links to other places there, with which `kdmesh resume` takes no folder.
    Keys are ``accuracy/validation/student`` (metric, stream, agent), ``loss/student`` and ``flows/student/t ->
    student`` (agent, flow), by ``step``, the steps of its stage; ``rounds/<stage>/...`` by ``round``.
    """

    def __init__(self, run: Any) -> None:
        self._last: dict[str, int] = {}  # by agent, the last step that was told
        self._known: set[str] = set()  # keys whose axis is declared
        about = {"folder": str(run.folder), "seed": run.seed, "backend": run.backend, "part": run.part}
        known = kept.read(run.folder) if run.resumed else None
        identity = known["id"] if known else secrets.token_hex(6)
        kept.write(run.folder, identity, os.environ["WANDB_PROJECT"])
        self._run = wandb.init(
            project=os.environ["WANDB_PROJECT"],
            name=run.part,
            group=os.environ.get("WANDB_RUN_GROUP") or run.mesh.name,
            id=identity,
            resume="allow" if run.resumed and _mode() == "online" else None,
            dir=os.environ.get("WANDB_DIR") or None,
            mode=_mode(),
            config={"mesh": run.mesh.dump(), **about},
            reinit="create_new",  # another run of this process may be open, of kdmesh or not
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_stats=True
            ),
        )

    def trained(
        self, step: int, losses: Mapping[str, float | None], flows: Mapping[str, Mapping[str, float | None]]
    ) -> None:
        """Log mean losses at a step of a stage."""
        self._last.update(dict.fromkeys(losses, step))
        self.write({"loss": losses, "flows": flows}, "step", step)

    def measured(self, name: str, stream: str, metrics: Mapping[str, Any], step: int | None) -> None:
        """Log one evaluation of an agent."""
        step = self._last.get(name, 0) if step is None else step
        self._last[name] = step
        self.write({f"{metric}/{stream}/{name}": value for metric, value in metrics.items()}, "step", step)

    def write(self, values: Mapping[str, Any], axis: str, at: int) -> None:
        """Log every number of a nested mapping under its path, by an axis; what is not a number is left out."""
        rows = {key: value for key, value in _leaves(values) if isinstance(value, int | float)}
        for key in rows.keys() - self._known:
            self._run.define_metric(key.replace("\\", "_"), step_metric=axis)
            self._known.add(key)
        if rows:
            self._run.log({**rows, axis: at})

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Put final figures into the run's summary, and how far each student is from its best teacher."""
        agents, metric = summary["agents"], summary["metric"]
        final = {name: about["metrics"] for name, about in {**agents, **summary["consensus"]}.items()}
        numbers = {key: value for key, value in _leaves({"final": final}) if isinstance(value, int | float)}
        for name, about in agents.items():
            for stream, metrics in about["metrics"].items():
                theirs = agents.get(about["best_teacher"], {}).get("metrics", {}).get(stream, {}).get(metric)
                if theirs is not None and metrics.get(metric) is not None:
                    numbers[f"final/{metric} over the best teacher/{stream}/{name}"] = metrics[metric] - theirs
        self._run.summary.update({**numbers, "best_teacher": summary["best_teacher"], "notes": summary["notes"]})

    def failed(self, error: str) -> None:
        """Keep why the run ended."""
        self._run.summary["error"] = error

    def close(self, code: int) -> None:
        """End the run with an exit code."""
        self._run.finish(exit_code=code)


def _mode() -> Any:
    """Offline, unless WANDB_MODE says otherwise."""
    return os.environ.get("WANDB_MODE") or "offline"


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested mapping that is none itself, with its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", value
