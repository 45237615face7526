"""Comparing runs that are there already, from their folders; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.compare.contender import counted
from kdmesh.compare.design import Design, Entry, Trial, refuse_margin
from kdmesh.contracts.run_files import MANIFEST
from kdmesh.errors import MeshError
from kdmesh.graph.roles import TAUGHT
from kdmesh.report import answers
from kdmesh.report.run_folder import MISREAD, RunFolder, read
from kdmesh.spec.names import LENGTH, fault
from kdmesh.tasks import compared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from kdmesh.compare.analysis import Scores

Summary = dict[str, Any]
SPLIT = ("seed", "test", "stratify", "dataset")  # fields of a mesh's data that say which samples are tested


def are_runs(paths: Sequence[str]) -> bool:
    """Whether paths are of runs' folders. MeshError where some are and others are not."""
    runs = [(Path(path) / MANIFEST).is_file() for path in paths]
    if any(runs) and not all(runs):
        raise MeshError(
            "is a mesh, and others are runs", file=paths[runs.index(False)], instead="meshes alone, or runs alone"
        )
    return all(runs)


def of_runs(
    paths: Sequence[str], asked: Mapping[str, str], equal: float | None = None, against: str = "first"
) -> tuple[Design, dict[Trial, Summary], Scores]:
    """The design that finished runs amount to, their summaries, and how their test samples scored.

    MeshError for what is no run, a run without a summary, and runs that cannot be paired: of other tests, metrics or
    seeds.
    """
    runs: dict[str, RunFolder] = {}
    for at, path in enumerate(paths):
        if Path(path).resolve() in [Path(one).resolve() for one in paths[:at]]:
            raise MeshError("is given twice", file=path, instead="another run's folder")
        run = read(path)
        if not run.summaries:
            raise MeshError(f"has no summary yet: it is {run.status}", file=path, instead="a run that has finished")
        name = run.name[:LENGTH] if not fault(run.name[:LENGTH]) else "run"
        alike = sum(known == name or known.startswith(f"{name}-") for known in runs)
        runs[f"{name}-{alike + 1}" if alike else name] = run
    if len(runs) < 2:
        raise MeshError("one run has nothing to be compared with", file=paths[0], instead="a second run's folder")
    try:
        return _of(runs, asked, equal, against)
    except MISREAD as error:
        what = f"what their folders hold is not as it was written ({type(error).__name__}: {error})"
        raise MeshError(what, file=paths[0], instead="runs as they were written") from None


def _of(
    runs: Mapping[str, RunFolder], asked: Mapping[str, str], equal: float | None, against: str
) -> tuple[Design, dict[Trial, Summary], Scores]:
    first, *others = runs
    refuse_margin(equal, compared(runs[first].summaries[0]).name)
    for name in others:
        _refuse_unlike(first, runs[first], name, runs[name])
    known = {name: list(run.summaries[0]["agents"]) for name, run in runs.items()}
    roles = {name: run.summaries[0]["agents"] for name, run in runs.items()}
    taught = {name: [one for one in found if found[one].get("role") in TAUGHT] for name, found in roles.items()}
    agents = counted(taught, known, asked)
    seeds = sorted({seed for run in runs.values() for seed in run.runs})
    design = Design(
        contenders={name: Entry(mesh=run.manifest["mesh"], agent=agents[name]) for name, run in runs.items()},
        seeds=seeds,
        data_seeds=[_data(runs[first]).get("seed", 0)],
        controls=True,
        equal=equal,
        against="each" if against == "each" else "first",
    )
    found: dict[Trial, Summary] = {}
    folders: dict[Trial, Path] = {}
    for name, run in runs.items():
        for seed, part in run.runs.items():
            if part.summary is not None:
                trial = Trial(contender=name, data_seed=design.data_seeds[0], seed=seed)
                found[trial], folders[trial] = part.summary, part.path

    def scores(trial: Trial, agent: str) -> np.ndarray[Any, Any] | None:
        filed = answers.read(folders[trial])
        return None if filed is None else filed.score(agent)

    return design, found, scores


def _refuse_unlike(first: str, mine: RunFolder, name: str, other: RunFolder) -> None:
    where = str(other.path)
    by = [compared(run.summaries[0]).name for run in (mine, other)]
    if by[0] != by[1]:
        raise MeshError(f"{first} is judged by {by[0]}, {name} by {by[1]}", file=where, instead="runs of one metric")
    if _tested(mine) != _tested(other):
        raise MeshError(
            f"{first} and {name} are tested on different samples: their differences would be of the data",
            file=where,
            instead="runs of one data set, data seed and size of the test part",
        )
    if not set(mine.runs) & set(other.runs):
        seeds = [", ".join(map(str, run.runs)) for run in (mine, other)]
        raise MeshError(
            f"{first} has the seeds {seeds[0]}, {name} {seeds[1]}: none of both, so nothing is paired",
            file=where,
            instead="runs of the same seeds, or kdmesh compare with their mesh files",
        )


def _data(run: RunFolder) -> dict[str, Any]:
    found = run.manifest["mesh"].get("data")
    return found if isinstance(found, dict) else {}


def _tested(run: RunFolder) -> dict[str, Any]:
    """What says which samples a run was tested on, as its manifest has it."""
    data = run.manifest.get("data")
    kept = {key: value for key, value in (data if isinstance(data, dict) else {}).items() if key != "read_by"}
    streams = kept.pop("streams", {})
    return {**kept, "test": streams.get("test"), "split": {key: _data(run).get(key) for key in SPLIT}}
