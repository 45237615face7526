"""Divide a stream over agents: alike, skewed by class, or by a column of the data set."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import torch

from kdmesh.errors import MeshError, nearest
from kdmesh.streams.order import permutation
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.spec.data import ShardSpec
    from kdmesh.streams.table import Table

DRAWS = 100  # attempts at a Dirichlet division that leaves no agent without samples


def shard(rows: Tensor, table: Table, spec: ShardSpec, seed: int, where: str = "shards") -> dict[str, Tensor]:
    """Return each agent's rows (ascending int64, disjoint, never empty), keyed in the order of ``spec.of``.

    - `iid`: equal parts of a seeded permutation.
    - `dirichlet`: of every class, proportions over agents from Dirichlet(alpha) (Hsu et al., arXiv 1909.06335); drawn
      anew, up to a limit, while an agent gets nothing.
    - `class`: agent i owns the classes ``perm[(i * classes + j) % C]``, j below ``classes``, of a seeded permutation of
      the C classes present; a class is divided evenly among its owners, and one without owner is left out.
    - `column`: the column's distinct values, sorted, are dealt to the agents in turn.
    """
    agents = len(spec.of)
    if not agents or len(set(spec.of)) < agents:
        raise MeshError(f"shards of {spec.of}", where=f"{where}.of", instead="agents, each named once")
    if len(rows) < agents:
        raise MeshError(f"{len(rows)} samples for {agents} agents", where=where, instead="fewer agents or more samples")
    if spec.by in ("dirichlet", "class") and table.strata is None:
        raise MeshError(f"`by: {spec.by}` needs labels that are classes", where=f"{where}.by", instead="iid or column")
    if spec.by in ("dirichlet", "class") and table.strata is not None and bool((table.strata[rows] < 0).any()):
        what = f"`by: {spec.by}` divides by labels, and samples of this stream have none"
        raise MeshError(what, where=f"{where}.by", instead="iid or column")
    parts = {"iid": _iid, "dirichlet": _dirichlet, "class": _by_class, "column": _by_column}[spec.by](
        rows, table, spec, seed, where
    )
    for agent, part in zip(spec.of, parts, strict=True):
        if not len(part):
            raise MeshError(f"no sample is left for {agent}", where=where, instead="fewer agents or more samples")
    return {agent: part.sort().values for agent, part in zip(spec.of, parts, strict=True)}


def _iid(rows: Tensor, table: Table, spec: ShardSpec, seed: int, where: str) -> list[Tensor]:
    return list(torch.tensor_split(rows[permutation(len(rows), seed, "iid")], len(spec.of)))


def _dirichlet(rows: Tensor, table: Table, spec: ShardSpec, seed: int, where: str) -> list[Tensor]:
    classes = _classes(rows, table, seed)
    for attempt in range(DRAWS):
        random = np.random.default_rng(mix(seed, "dirichlet", attempt))
        parts: list[list[Tensor]] = [[] for _ in spec.of]
        for members in classes.values():
            proportions = random.dirichlet([spec.alpha] * len(spec.of))
            cuts = (proportions.cumsum()[:-1] * len(members)).astype(np.int64).tolist()
            for part, piece in zip(parts, torch.tensor_split(members, cuts), strict=True):
                part.append(piece)
        whole = [torch.cat(part) for part in parts]
        if all(len(part) for part in whole):
            return whole
    raise MeshError(
        f"each of {DRAWS} draws at alpha {spec.alpha} left an agent without samples",
        where=f"{where}.alpha",
        instead="a larger alpha, fewer agents or more samples",
    )


def _by_class(rows: Tensor, table: Table, spec: ShardSpec, seed: int, where: str) -> list[Tensor]:
    members = _classes(rows, table, seed)
    present = sorted(members)
    if spec.classes > len(present):
        raise MeshError(f"{spec.classes} classes per agent where {len(present)} are present", where=f"{where}.classes")
    order = [present[i] for i in permutation(len(present), seed, "classes").tolist()]
    owners: dict[int, list[int]] = defaultdict(list)
    for i in range(len(spec.of)):
        for j in range(spec.classes):
            owners[order[(i * spec.classes + j) % len(order)]].append(i)
    parts: list[list[Tensor]] = [[] for _ in spec.of]
    for c, own in owners.items():
        for i, piece in zip(own, torch.tensor_split(members[c], len(own)), strict=True):
            parts[i].append(piece)
    return [torch.cat(part) for part in parts]


def _by_column(rows: Tensor, table: Table, spec: ShardSpec, seed: int, where: str) -> list[Tensor]:
    if spec.column is None or spec.column not in table.columns:
        what = f"unknown column {spec.column!r}" if spec.column else "no column is named"
        raise MeshError(what, where=f"{where}.column", instead=nearest(spec.column or "", table.columns, "columns"))
    values = table.columns[spec.column]
    own = [values[row] for row in rows.tolist()]
    distinct = sorted(set(own))
    if len(distinct) < len(spec.of):
        raise MeshError(
            f"column {spec.column!r} has {len(distinct)} values for {len(spec.of)} agents",
            where=f"{where}.of",
            instead="fewer agents, or another column",
        )
    agent = {value: i % len(spec.of) for i, value in enumerate(distinct)}
    owner = torch.tensor([agent[value] for value in own])
    return [rows[owner == i] for i in range(len(spec.of))]


def _classes(rows: Tensor, table: Table, seed: int) -> dict[int, Tensor]:
    """The rows of each class that is present, each class in a seeded order."""
    assert table.strata is not None
    y = table.strata[rows]
    members = {int(c): rows[y == c] for c in y.unique()}
    return {c: own[permutation(len(own), seed, "class", c)] for c, own in members.items()}
