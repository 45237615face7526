"""`prepare`: scikit-learn's transformers are fitted on the training rows of a table, and its samples made by them.

What they have learned is kept as plain numbers and words (:mod:`kdmesh.streams.prepared`), which give what their own
``transform`` gives, in float64, and then float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kdmesh.errors import MeshError
from kdmesh.streams.cells import Cells, Values, gap
from kdmesh.streams.prepared import BY, ENCODE, FILL, Group, Prepared
from kdmesh.streams.unread import Unread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from kdmesh.spec import MeshSpec
    from kdmesh.spec.prepare import PrepareSpec
    from kdmesh.streams.table import Table

HASHED = 64
"""Columns that `hash` gives, unless a group says otherwise."""
REST = "neither a number, nor in a group of `prepare`"
PIXELS = "pixels"


def fit(source: Cells, groups: Sequence[PrepareSpec], where: str) -> Prepared:
    """Fit groups on the rows of a source, which are those of train. MeshError for what cannot be fitted on them."""
    missing = {word for group in groups for word in group.missing}
    kinds = source.kinds(missing)
    named = {name for group in groups if isinstance(group.columns, list) for name in group.columns}
    found: list[Group] = []
    for number, group in enumerate(groups):
        at = f"{where}.{number}"
        if isinstance(group.columns, list):
            source.has(group.columns, f"{at}.columns")
            columns = group.columns
        else:
            columns = [name for name, kind in kinds.items() if kind == group.columns and name not in named]
        if not columns:
            what = f"no column that is left is one of {group.columns}"
            if gone := [name for name, kind in kinds.items() if kind == "empty" and name not in named]:
                what += f", and every cell of train is empty in {', '.join(gone)}"
            raise MeshError(what, where=f"{at}.columns", instead="leave this group out, or name columns, [age]")
        found.append(_group(replace(source, where=at), group, columns))
    taken = {name for group in found for name in group.columns}
    if rest := [name for name, kind in kinds.items() if kind == "numbers" and name not in taken]:
        found.append(Group({}, rest))
    columns = [name for name in source.columns if name in taken or name in rest]
    return Prepared(columns, [len(columns)], found, len(source))


def _group(source: Cells, group: PrepareSpec, columns: list[str]) -> Group:
    asked = group.model_dump(mode="json", exclude={"columns"}, exclude_defaults=True)
    if group.encode == "hash":
        asked["outputs"] = group.outputs or HASHED
    made = Group(asked, columns)
    return _words(source, group, made) if group.encode else _numbers(source, group, made)


def _numbers(source: Cells, group: PrepareSpec, made: Group) -> Group:
    from sklearn.impute import SimpleImputer

    values = source.values(made.columns, group.missing, ENCODE)
    empty = np.isnan(values)
    _refuse_empty(source, made.columns, empty)
    if group.impute is not None:
        made.numbers[FILL] = SimpleImputer(strategy=group.impute).fit(values).statistics_.astype(np.float64)
    if group.indicator:
        made.gaps = _gaps(values)
    if group.scale is not None:
        made.numbers |= _scale(group.scale, made._filled(values, empty, source, learned=False))
    return made


def _words(source: Cells, group: PrepareSpec, made: Group) -> Group:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OrdinalEncoder

    words = [source.words(name, group.missing) for name in made.columns]
    empty = np.array([[one is None for one in column] for column in words]).T
    _refuse_empty(source, made.columns, empty)
    if group.indicator:
        made.gaps = _gaps(np.where(empty, np.nan, 0.0))
    for column in words:
        if group.impute is not None:
            there = np.array([[one] for one in column], dtype=object)
            imputer = SimpleImputer(missing_values=None, strategy=group.impute)
            made.fills.append(str(imputer.fit(there).statistics_[0]))
        if group.encode in ("one_hot", "ordinal"):
            filled = np.array([[one] for one in column if one is not None], dtype=object)
            known = group.order or OrdinalEncoder().fit(filled).categories_[0].tolist()
            made.categories.append([str(one) for one in known])
    if group.scale is not None:
        places = [made._encoded(place, column, source, learned=False) for place, column in enumerate(words)]
        made.numbers |= _scale(group.scale, np.concatenate(places, axis=1))
    return made


def _gaps(values: np.ndarray) -> list[bool]:
    """The columns that have a gap."""
    from sklearn.impute import MissingIndicator

    there = set(MissingIndicator(features="missing-only").fit(values).features_.tolist())
    return [place in there for place in range(values.shape[1])]


def _scale(by: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers by which values ``[n, C]`` are scaled."""
    from sklearn import preprocessing

    classes = {
        "standard": "StandardScaler",
        "robust": "RobustScaler",
        "maxabs": "MaxAbsScaler",
        "minmax": "MinMaxScaler",
    }
    own = {
        "standard": ("mean_", "scale_"),
        "robust": ("center_", "scale_"),
        "maxabs": ("scale_",),
        "minmax": ("scale_", "min_"),
    }
    fitted = getattr(preprocessing, classes[by])().fit(values)
    return {
        name: np.asarray(getattr(fitted, known), dtype=np.float64) for name, known in zip(BY[by], own[by], strict=True)
    }


def _refuse_empty(source: Cells, columns: list[str], empty: np.ndarray) -> None:
    """MeshError for a column of which train has nothing."""
    for place in np.flatnonzero(empty.all(0)).tolist():
        instead = "`features` without this column, or train samples that have it"
        source.refuse(0, columns[place], f"this and all {len(empty)} cells of train are empty", instead)


def _of_pixels(x: Tensor, groups: Sequence[PrepareSpec], rows: Tensor, where: str) -> Prepared:
    """Fit channels ``[N, C, ...]``."""
    if not groups:
        return Prepared([], list(x.shape[1:]), [Group({}, [])])
    if len(groups) != 1 or groups[0].columns != PIXELS:
        what = f"samples of shape {list(x.shape[1:])} have no columns"
        raise MeshError(what, where=f"{where}.0.columns", instead="columns: pixels, with `scale`, and no other group")
    (group,) = groups
    values = x[rows].transpose(1, -1).reshape(-1, x.shape[1]).numpy().astype(np.float64)
    assert group.scale is not None
    return Prepared(
        [], list(x.shape[1:]), [Group({"scale": group.scale}, [], numbers=_scale(group.scale, values))], len(rows)
    )


def _made(
    table: Table, groups: Sequence[PrepareSpec], rows: Tensor | None, where: str, fitted: Prepared | None
) -> tuple[Tensor, Prepared]:
    """The samples of a table as groups make them, ``[N, ...]`` float32, and what was learned of its ``rows``.

    ``rows`` None: they are a party's own, of which nothing is learned or shown; ``fitted`` says how they are made.
    """
    if table.is_text:
        raise MeshError("the samples are texts, which have tokenizers", where=where, instead="leave `prepare` out")
    if fitted is None and (rows is None or not len(rows)):
        what = (
            "it is fitted on train, of which there is no sample that is not private: what it learns would tell of them"
        )
        raise MeshError(what, where=where, instead="a stream of train that is not private, or files that are prepared")
    if table.cells is None and table.tensor.dim() != 2:
        made = fitted or _of_pixels(table.tensor, groups, _known(rows), where)
        x = made.of_values(table.tensor)
        if rows is not None and len(rows):
            made.example = ([_range(table.tensor[rows[0]])], [_range(x[rows[0]])])
        return x, made
    odd = next((number for number, group in enumerate(groups) if group.columns == PIXELS), None)
    if odd is not None:
        raise MeshError("the samples are no images", where=f"{where}.{odd}.columns", instead="columns: numbers")
    source = table.cells or Values.of(table.tensor, table.features, where)
    made = fitted or fit(source.take(_known(rows).tolist()), groups, where)
    x = made.of_cells(replace(source, where=where), learned=False)  # cells of other splits, but a group's setting
    if rows is None or not len(rows):
        return x, made
    before = source.take(rows[:1].tolist())
    after = zip(made.outputs, x[rows[0]].tolist(), strict=True)
    made.example = (
        [f"{name}={before.shown(name)}" for name in made.columns],
        [f"{name}={value:.4g}" for name, value in after if value],
    )
    return x, made


def _known(rows: Tensor | None) -> Tensor:
    assert rows is not None  # else something was learned before
    return rows


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.4g} to {float(values.max()):.4g}"


@dataclass
class Fitted:
    """What was learned of train: for all agents (None: nothing), and for those with a `prepare` of their own."""

    data: Prepared | None
    agents: dict[str, Prepared]

    @classmethod
    def of(cls, table: Table) -> Fitted:
        """That of a table that is prepared."""
        return cls(table.prepared, {name: made for name, (_, made) in table.own.items()})


def prepares(spec: MeshSpec) -> bool:
    """Whether a mesh prepares its samples, for all agents or for some."""
    return bool(spec.data and spec.data.prepare) or any(one.prepare is not None for one in spec.agents.values())


def prepared(
    table: Table,
    spec: MeshSpec,
    rows: Tensor | None,
    fitted: Fitted | None = None,
    others: Mapping[str, Tensor] | None = None,
) -> Table:
    """The table with samples as the mesh prepares them; itself, where it does not, or they are so already.

    ``rows``: those of train that any host may know; ``fitted``: what was learned of them before; ``others``: the rows
    of the other splits, of which is told where they have nothing in a column.
    """
    if not prepares(spec) or table.prepared is not None:
        return table
    if isinstance(table.x, Unread):
        what = "the samples are read when they are asked for, and no fit looks at all of them first"
        where = "data.prepare" if spec.data and spec.data.prepare else "agents"
        raise MeshError(what, where=where, instead="samples in memory, lazy: false")
    groups = spec.data.prepare if spec.data is not None else []
    x, made = _made(table, groups, rows, "data.prepare", None if fitted is None else fitted.data)
    own = {
        name: _made(
            table, agent.prepare, rows, f"agents.{name}.prepare", None if fitted is None else fitted.agents[name]
        )
        for name, agent in spec.agents.items()
        if agent.prepare is not None
    }
    if table.cells is None:
        sources = table.features
        return replace(table, x=x, known=table.tensor, sources=sources, features=made.outputs, prepared=made, own=own)
    every = [made, *(agent for _, agent in own.values())]
    read = {name for one in every for name in one.columns}
    said: list[str] = []
    if fitted is None:
        parts = {split: table.cells.take(held.tolist()) for split, held in (others or {}).items()}
        said += dict.fromkeys(note for split, part in parts.items() for one in every for note in one.empty(part, split))
    return replace(
        table,
        x=x,
        cells=None,
        known=table.cells.known(read),
        sources=[name for name in table.cells.columns if name in read],
        features=made.outputs,
        left_out={**table.left_out, **_left_out(table.cells, rows, read)},
        prepared=made,
        own=own,
        notes=[*table.notes, *said],
    )


def _left_out(cells: Cells, rows: Tensor | None, read: set[str]) -> dict[str, str]:
    """The columns that nobody reads, and why; ``rows``: those of train, where these are of it."""
    train, found = (cells if rows is None else cells.take(rows.tolist())).columns, {}
    for name in (one for one in cells.columns if one not in read):
        empty = [all(map(gap, columns[name])) for columns in (cells.columns, train)]
        found[name] = "every cell is empty" if empty[0] else "every cell of train is empty" if empty[1] else REST
    return found
