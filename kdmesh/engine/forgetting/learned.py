"""Who learned samples: weights, which say so in their headers, in a run and in the runs that began with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import MANIFEST
from kdmesh.files import INDEX, WEIGHTS, read_json, sha256
from kdmesh.report.folders import find, of_many, trials_of
from kdmesh.streams.contents import Keys
from kdmesh.streams.learned import SEEN, in_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

AGENTS, RULES = "agents", "consensus"
TAUGHT, CHOSE, MAYBE = "taught", "chose", "maybe"
SAYS = {
    TAUGHT: "learned them, itself or by what its teachers learned: retrain it",
    CHOSE: "was stopped, or chosen, by them: retrain it, if that counts",
    MAYBE: "may have learned them, and says of no sample whether it did: retrain it",
}


@dataclass(frozen=True)
class Weights:
    """A folder of weights that samples reached, and how: a key of `SAYS`."""

    path: Path
    how: str


def learners(part: Path, keys: Tensor, reached: bool) -> Iterator[Weights]:
    """The folders of weights in a part of a run that learned any of some samples.

    ``reached``: whether the samples are in a stream of the run, by which weights without a record are judged.
    """
    for kind in (AGENTS, RULES):
        for folder in sorted(one for one in (part / kind).glob("*") if one.is_dir()):
            if how := _how(folder, keys, reached or kind == AGENTS):
                yield Weights(folder, how)


def _how(folder: Path, keys: Tensor, reached: bool) -> str:
    files = [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(folder.glob("*.safetensors"))
    if not files and not (folder / INDEX).is_file():
        return ""  # of frozen weights there is a reference alone
    records = next((found for file in files if (found := in_header(file)) is not None), None)
    if not records:
        return MAYBE if reached else ""
    told = [_told(one, keys) for one in records]
    return next((how for how in (TAUGHT, CHOSE, MAYBE) if how in told and (how != MAYBE or reached)), "")


def _told(record: Any, keys: Tensor) -> str:
    """What a record says of samples with these keys."""
    try:
        seen = record[SEEN]
        for how in (TAUGHT, CHOSE):
            held = Keys(seen[how])
            if bool(held.have(keys).any()):
                return how
        return MAYBE if seen["private"] or not bool(Keys(seen[TAUGHT]).told(keys).all()) else ""
    except (KeyError, TypeError, ValueError):
        return MAYBE


@dataclass(frozen=True)
class Run:
    """Another run that samples reached: the agents that learned them, and what it has of the run."""

    path: Path
    agents: tuple[str, ...]
    began: str


def others(root: Path, parent: Path, keys: Tensor) -> list[Run]:
    """Runs in a folder that learned the same samples, or that began with this run or with one that did."""
    home, runs = root.resolve(), _runs(parent)
    made = {one: _made_of(one) for one in runs}
    gone, more = {home: _sums(home)}, True
    began: dict[Path, str] = {}
    while more:  # until no run is found that has something of one that was
        more = False
        for one in runs:
            if one.resolve() in gone or _inside(one, home):
                continue
            if why := _has(made[one], gone):
                began[one], gone[one.resolve()], more = why, _sums(one), True
    found = []
    for one in runs:
        if one.resolve() == home or _inside(one, home):
            continue
        agents = tuple(
            where.path.relative_to(one).as_posix() for where in learners_below(one, keys) if where.how == TAUGHT
        )
        if agents or one in began:
            found.append(Run(one, agents, began.get(one, "")))
    return found


def learners_below(root: Path, keys: Tensor) -> Iterator[Weights]:
    """The same of a run with all its parts, by what weights say of themselves alone."""
    for folder in sorted(one for one in root.rglob(AGENTS) if one.is_dir()):
        yield from learners(folder.parent, keys, False)


def _runs(parent: Path) -> list[Path]:
    every = [*find(parent), *(trial for one, *_ in of_many(parent) for trial in trials_of(one))]
    return sorted(set(every))


def _made_of(root: Path) -> tuple[set[str], set[Path]]:
    """The sums of files and the paths that a run was made from."""
    known = read_json(root / MANIFEST) or {}
    sums, paths = set[str](), set[Path]()
    _strings([known.get(part) for part in ("teachers", "inputs")], sums)
    texts = set[str]()
    _strings([known.get("mesh"), known.get("teachers"), known.get("raised")], texts)
    for one in texts:
        if one.startswith("/") and "\0" not in one:
            paths.add(Path(one))
    return sums, paths


def _strings(value: Any, found: set[str]) -> None:
    if isinstance(value, str):
        found.add(value)
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _strings(one, found)


def _sums(root: Path) -> set[str]:
    """The sums of all weights of a run."""
    return {sha256(one) for one in root.glob(f"**/{AGENTS}/*/*.safetensors")}


def _has(made: tuple[set[str], set[Path]], gone: dict[Path, set[str]]) -> str:
    """What a run has of others, in words; "" for nothing."""
    sums, paths = made
    for root, own in gone.items():
        if sums & own:
            return f"began with weights of {root.name}"
        if any(_inside(path, root) for path in paths):
            return f"was made of files in {root.name}"
    return ""


def _inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return False
