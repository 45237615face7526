"""Divide a data set into test, validation, transfer and train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError
from kdmesh.spec.data import SPLITS, DataSpec
from kdmesh.spec.parties import OWN
from kdmesh.streams.order import permutation

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.spec.data import Share
    from kdmesh.streams.table import Table

OFFICIAL = (*SPLITS, OWN)  # those that a table may bring
DRAWN_TEST = 0.2  # of a data set without an official test split


def split(table: Table, spec: DataSpec) -> dict[str, Tensor]:
    """Return disjoint rows (ascending int64) by split: `test`, `validation`, `transfer`, `train`, in order of taking.

    - `test`: the official one, or ``spec.test`` of it; without an official one, drawn from all rows (default 0.2).
    - `validation`, then `transfer`: fractions are of the pool, which is every row outside the test split and outside
      official splits (the official train rows, if the data set names them). An official validation split is kept whole
      unless another size than the default is asked for, which is then drawn from it.
      An official transfer split, of samples without labels, is kept whole unless a size is asked for.
    - `own`: the official one, of samples that parties have for themselves.
    - `train`: what remains of the pool, or ``spec.train`` of that; and canaries, which are in no pool.

    A split of size 0 is left out. The seed is ``spec.seed``; each split has an order of its own.
    Stratified by class where there are labels and ``spec.stratify``. Sizes that cannot be met are MeshErrors.
    """
    official = _official(table)
    planted = table.planted.rows if table.planted is not None else torch.empty(0, dtype=torch.int64)
    every = without(torch.arange(len(table)), planted)
    pool = official["train"] if "train" in official else without(every, *official.values())
    splits: dict[str, Tensor] = {}

    def take(name: str, size: Share, source: Tensor, left: Tensor) -> None:
        count = count_of(size, len(source), f"data.{name}", available=len(left))
        if count:
            splits[name] = draw(left, count, table.strata if spec.stratify else None, spec.seed, "split", name)

    test, validation, transfer = official.get("test"), official.get("validation"), official.get("transfer")
    if test is not None:
        take("test", 1.0 if spec.test is None else spec.test, test, test)
    else:
        take("test", DRAWN_TEST if spec.test is None else spec.test, pool, pool)
        pool = without(pool, *splits.values())
    if validation is not None:
        default = DataSpec.model_fields["validation"].default
        take("validation", 1.0 if spec.validation == default else spec.validation, validation, validation)
    else:
        take("validation", spec.validation, pool, pool)
    if transfer is not None:
        take("transfer", spec.transfer or 1.0, transfer, transfer)
    else:
        take("transfer", spec.transfer, pool, without(pool, *splits.values()))
    if OWN in official:
        splits[OWN] = official[OWN]
    rest = without(pool, *splits.values())
    if not len(rest):
        raise MeshError(
            f"nothing of {len(table)} samples remains for training",
            where="data.train",
            instead="smaller test, validation or transfer splits",
        )
    take("train", 1.0 if spec.train is None else spec.train, rest, rest)
    if len(planted):
        splits["train"] = torch.cat([splits["train"], planted])  # behind all others: ascending
    return splits


def count_of(size: Share, whole: int, where: str, available: int | None = None) -> int:
    """Return how many samples a size means: a fraction (float, up to 1.0) of ``whole``, or a count (int).

    A size above 0 that comes out as no sample, or as more than are ``available`` (by default all), is a MeshError.
    """
    if isinstance(size, float) and not size <= 1:  # NaN is no fraction either
        raise MeshError(
            f"a fraction of {size}", where=where, instead="a fraction up to 1.0, or a whole number of samples"
        )
    count = round(size * whole) if isinstance(size, float) else size
    available = whole if available is None else available
    if size and not count:
        raise MeshError(f"{size} of {whole} samples is none", where=where, instead="a larger share, or 0 for none")
    if count > available:
        raise MeshError(
            f"{size} asks for {count} samples where {available} are left", where=where, instead="a smaller size"
        )
    return count


def draw(rows: Tensor, count: int, y: Tensor | None, *names: int | str) -> Tensor:
    """Draw ``count`` of ``rows`` without replacement, seeded by the names; returned in ascending order.

    With ``y`` (the table's labels) each class keeps its share: the floor of its quota, and one more for the largest
    remainders.
    """
    mixed = rows[permutation(len(rows), *names)]
    if y is None:
        return mixed[:count].sort().values
    counts = y[mixed].unique(return_counts=True)[1]
    parts = mixed[torch.argsort(y[mixed], stable=True)].split(counts.tolist())
    shares = zip(parts, quotas(counts.tolist(), count), strict=True)
    return torch.cat([part[:share] for part, share in shares]).sort().values


def without(rows: Tensor, *taken: Tensor) -> Tensor:
    """Return ``rows`` less those that were taken, in the same order."""
    return rows[~torch.isin(rows, torch.cat(taken))] if taken else rows


def quotas(counts: list[int], total: int) -> list[int]:
    """Divide ``total`` in proportion to ``counts`` by largest remainder, in whole numbers; ties go to the first."""
    whole = sum(counts)
    quotas = [total * count // whole for count in counts]
    remainders = sorted(range(len(counts)), key=lambda c: -(total * counts[c] % whole))
    for c in remainders[: total - sum(quotas)]:
        quotas[c] += 1
    return quotas


def _official(table: Table) -> dict[str, Tensor]:
    """The table's own splits, ascending, after a check that they are rows of it and disjoint."""
    if unknown := [name for name in table.official if name not in OFFICIAL]:
        raise MeshError(
            f"the table has an official split {unknown[0]!r}", where="data.dataset", instead=", ".join(OFFICIAL)
        )
    official = {name: rows.to(torch.int64).sort().values for name, rows in table.official.items()}
    rows = torch.cat([*official.values(), torch.empty(0, dtype=torch.int64)])
    if len(rows) and (rows.min() < 0 or rows.max() >= len(table) or len(rows.unique()) < len(rows)):
        raise MeshError(
            f"the official splits ({', '.join(official)}) overlap or name rows beyond the {len(table)} there are",
            where="data.dataset",
        )
    return official
