"""Shadow runs: the same mesh, trained on random halves of samples, of which it is known who learned them.

Carlini et al., "Membership Inference Attacks From First Principles", 2022 (LiRA, online): a sample's confidence under
models that learned it, and under others, says how likely each is for the model that is audited. Halves come in pairs of
which each has what the other lacks, so that every sample is learned in half of the runs. What a shadow run said is kept
beside the audit, and its folder goes; so an audit that was broken off, or is to have more shadows, goes on from there.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from kdmesh.audits.membership import confidences, lira_scores, measured
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.inference.auditing.losses import class_scores, of_rows
from kdmesh.inference.auditing.membership import Told
from kdmesh.inference.auditing.opened import TEST, seen_by, with_table
from kdmesh.plugins import registry
from kdmesh.spec.base import DatasetRef
from kdmesh.streams.seeds import mix
from kdmesh.streams.stream import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kdmesh.inference.auditing.opened import Opened
    from kdmesh.inference.trained import Trained
    from kdmesh.spec import MeshSpec
    from kdmesh.streams.table import Table

    Train = Callable[[MeshSpec, Table, Path], Path]
    """Trains a mesh on a table, in a folder below the one that is named; returns the run's folder."""

SHADOWS, AT_WORK = "shadows", "at-work"
LEAST, MOST = 2, 1024
KEY = "of"


@dataclass
class Shadows:
    """``pool``: rows of the table that shadow runs learn or not; ``scores``, ``learned``: by agent, ``[S, n]``: the
    confidence of each shadow run about each, and whether its weights have seen it."""

    pool: Tensor
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    learned: dict[str, np.ndarray] = field(default_factory=dict)


def shadows(
    opened: Opened,
    count: int,
    train: Train,
    told: Callable[[str], None] = lambda line: None,
    spends: bool = False,
) -> Shadows:
    """Train those of ``count`` shadow runs that are not there yet, and read what all of them say.

    ``spends``: ``train`` has an account of its own for each run whose parties have a privacy budget.
    """
    if not LEAST <= count <= MOST or count % 2:
        what = f"an even number from {LEAST} to {MOST:,}: each half has a counterpart"
        raise MeshError(f"is {count}", where="--shadows", instead=what)
    _refuse(opened, spends)
    pool = pool_of(opened)
    folder, key, agents = opened.root / SHADOWS, _key(opened, pool), _agents(opened)
    found = Shadows(pool)
    folder.mkdir(exist_ok=True)
    parts, begun, made = [], monotonic(), 0
    for number in range(count):
        path = folder / f"{number}.safetensors"
        if not path.exists():
            since = monotonic()
            _make(opened, number, pool, agents, path, key, train)
            made += 1
            left = (monotonic() - begun) / made * (count - number - 1)
            told(f"shadow {number + 1} of {count}: {monotonic() - since:.0f} s, about {left:.0f} s left")
        parts.append(_read(path, key))
    for agent in agents:
        found.scores[agent] = np.stack([one[f"{agent}.scores"] for one in parts])
        found.learned[agent] = np.stack([one[f"{agent}.learned"] for one in parts])
    return found


def by_shadows(opened: Opened, agent: str, trained: Trained, known: Shadows, rate: float) -> list[Told]:
    """How well an agent's samples, and those of its teachers, are told by likelihood ratios.

    Samples that no shadow run, or each, has learned are left out.
    """
    found, rows = [], known.pool
    own = confidence(trained, opened, rows)
    others = opened.held[rows].numpy()
    for name, mask in opened.told(agent).items():
        if name not in known.learned:
            continue
        inside = known.learned[name]
        both = inside.any(0) & ~inside.all(0)
        members = mask[rows].numpy() & both
        if not members.any() or not (others & both).any():
            continue
        at = np.flatnonzero(members | (others & both))
        scores = known.scores[agent][:, at]
        within = np.where(inside[:, at], scores, np.nan)
        without = np.where(inside[:, at], np.nan, scores)
        ratio = lira_scores(own[at], within, without)
        split = members[at]
        right = tuple(of_rows(trained, opened, _mask(rows[at[one]], opened.table)).right for one in (split, ~split))
        found.append(Told(agent, name, "shadows", measured(ratio[split], ratio[~split], rate), (right[0], right[1])))
    return found


def confidence(trained: Trained, opened: Opened, rows: Tensor) -> np.ndarray:
    """How sure an agent is of each sample ``[n]``: the logit of its class's probability; of a text its log-likelihood a
    character."""
    if trained.writes:
        mask = _mask(rows, opened.table)
        assert torch.equal(mask.nonzero().flatten(), rows), "rows are in order"
        return np.asarray(-of_rows(trained, opened, mask).each.numpy())
    scores, y = class_scores(trained, opened, rows)
    return confidences(scores.softmax(1).numpy(), y.numpy())


def pool_of(opened: Opened) -> Tensor:
    """The samples that shadow runs learn half of, ascending: those of train, and as many that nobody learned."""
    learned = torch.zeros(len(opened.table), dtype=torch.bool)
    learned[opened.streams["train"].rows] = True
    learned &= ~opened.planted
    members, others = learned.nonzero().flatten(), opened.held.nonzero().flatten()
    size = min(len(members), len(others))
    drawn = random.Random(mix(opened.plan.spec.seed, SHADOWS, "others"))
    others = others[sorted(drawn.sample(range(len(others)), size))]
    return torch.cat([members, others]).sort().values


def half(opened: Opened, pool: Tensor, number: int) -> tuple[MeshSpec, Table]:
    """The mesh and the table of a shadow run: one half of the pool in train, the other in test, all else as it was."""
    order = list(range(len(pool)))
    random.Random(mix(opened.plan.spec.seed, SHADOWS, number // 2)).shuffle(order)
    parts = order[: len(pool) // 2], order[len(pool) // 2 :]
    if number % 2:
        parts = parts[1], parts[0]
    official = {name: pool[sorted(own)] for name, own in zip(("train", TEST), parts, strict=True)}
    for name in ("validation", "transfer"):
        if name in opened.streams:
            official[name] = opened.streams[name].rows
    spec = opened.plan.spec
    assert spec.data is not None
    whole = {"test": None, "train": None, "transfer": 0, "canaries": None, "dataset": DatasetRef(name="python:given")}
    size = type(spec.data).model_fields["validation"].default if "validation" in opened.streams else 0
    data = spec.data.model_copy(update={**whole, "validation": size})
    seed = mix(spec.seed, SHADOWS, number) % 2**31
    table = replace(opened.table, official=official, planted=None, notes=[])
    return spec.model_copy(update={"data": data, "seed": seed}), table


def _make(opened: Opened, number: int, pool: Tensor, agents: list[str], path: Path, key: str, train: Train) -> None:
    """Train one, ask its agents, keep what they say, and remove it."""
    work = path.parent / AT_WORK
    shutil.rmtree(work, ignore_errors=True)
    spec, table = half(opened, pool, number)
    root = train(spec, table, work)
    plan = make_plan(spec, registry())
    assert spec.data is not None
    streams = resolve(table, spec.data, spec.streams)
    shadow = with_table(root, plan, table, streams)
    said: dict[str, np.ndarray] = {}
    for agent in agents:
        said[f"{agent}.scores"] = confidence(shadow.agent(agent), shadow, pool)
        said[f"{agent}.learned"] = seen_by(plan, agent, table, streams)[pool].numpy()
    draft = path.with_suffix(".draft")
    save_file(said, draft, {KEY: key})
    draft.replace(path)
    shutil.rmtree(work, ignore_errors=True)


def _read(path: Path, key: str) -> dict[str, np.ndarray]:
    instead = f"remove {SHADOWS}/ of the run: they are made again"
    try:
        with safe_open(path, "numpy") as stored:
            if (stored.metadata() or {}).get(KEY) != key:
                raise MeshError("is a shadow of another run, or of other samples", file=str(path), instead=instead)
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise MeshError(f"cannot be read: {error}", file=str(path), instead=instead) from None


def _key(opened: Opened, pool: Tensor) -> str:
    """Of what shadow runs are made: the mesh, the samples, and who of them is in the pool."""
    digest = sha256(repr(opened.plan.resolved().model_dump(mode="json")).encode())
    digest.update(repr(sorted(opened.table.fingerprint.items())).encode() + pool.numpy().tobytes())
    return digest.hexdigest()


def _agents(opened: Opened) -> list[str]:
    """Agents that have something to tell, and can be asked."""
    return [name for name in opened.plan.spec.agents if opened.told(name) and name not in _unasked(opened)]


def _unasked(opened: Opened) -> set[str]:
    found = set()
    for name in opened.plan.spec.agents:
        try:
            opened.agent(name)
        except MeshError:
            found.add(name)
    return found


def _refuse(opened: Opened, spends: bool) -> None:
    plan, table = opened.plan, opened.table
    if not spends and any(one.privacy for one in plan.spec.parties.values()):
        what = "each shadow run would spend of a party's privacy budget"
        raise MeshError(what, where="--shadows", instead="an audit without shadow runs")
    if any(one.data for one in plan.spec.parties.values()):
        raise MeshError("parties have samples of their own", where="--shadows", instead="an audit without shadow runs")
    if table.prepared is not None or table.own:
        what = "the run prepared its samples by what it learned of train, which a shadow run would have to learn anew"
        raise MeshError(what, where="--shadows", instead="an audit without shadow runs")
    if table.unread:
        what = "samples are read when they are asked for"
        raise MeshError(what, where="--shadows", instead="a run with lazy: false, or an audit without shadow runs")
    if "train" not in opened.streams or not opened.streams["train"].rows.numel():
        raise MeshError("it has no train", where="--shadows", instead="an audit without shadow runs")


def _mask(rows: Tensor, table: Table) -> Tensor:
    found = torch.zeros(len(table), dtype=torch.bool)
    found[rows] = True
    return found
