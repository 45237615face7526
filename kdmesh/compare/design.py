"""What a comparison was asked to be, as ``compare.json`` in its folder keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdmesh.contracts.run_files import COMPARED, TRIALS
from kdmesh.errors import MeshError
from kdmesh.files import read_json
from kdmesh.spec.names import Name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DESIGN = COMPARED
SCHEMA = 1
Kind = TypeVar("Kind", bound=BaseModel)


class Entry(BaseModel):
    """A contender, with what it was when the comparison began.

    Attributes:
        mesh: in the long form, every default written.
        agent: whose figures are compared.
        differs: what was changed against the file.
        text: of the file.
        beside: folders with code that the mesh names.
        made_of: sums of its data, code and whatever else it was made from, which every trial must have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mesh: dict[str, Any]
    agent: Name
    differs: list[str] = []
    text: str | None = None
    beside: list[str] = []
    made_of: dict[str, Any] = {}


class Trial(BaseModel):
    """One run: a contender on a split with a seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    contender: Name
    data_seed: int
    seed: int

    @property
    def folder(self) -> str:
        """Its run's folder, within the comparison's."""
        return f"{TRIALS}/{self.contender}/data-{self.data_seed}-seed-{self.seed}"

    def __str__(self) -> str:
        return f"{self.contender}, seed {self.seed}" + (f", data seed {self.data_seed}" if self.data_seed else "")


class Design(BaseModel):
    """A comparison.

    Attributes:
        contenders: by name; the first is the one that others are compared with.
        seeds: run seeds of every contender, on every split.
        data_seeds: which splits.
        shared: of several splits, the number of test samples for each training sample: they are of the same samples.
        controls: whether students are also trained alone, and by their best teacher only.
        equal: the margin within which a difference does not matter, in the metric's unit; None: not asked.
        against: whether all are compared with the `first`, or every one with `each` other.
        backend: where every trial lives.
        strict_signals: as for `run`.
        workers: how many trials are made side by side; None: one per core.
        store: as for `run`, from a folder's root; None: as each trial's environment says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    contenders: dict[Name, Entry]
    seeds: Annotated[list[int], Field(min_length=1)]
    data_seeds: Annotated[list[int], Field(min_length=1)]
    shared: Annotated[float, Field(ge=0)] = 0.0
    controls: bool = True
    equal: float | None = None
    against: Literal["first", "each"] = "first"
    backend: Literal["inline", "ray"] = "inline"
    strict_signals: bool = False
    workers: Annotated[int, Field(ge=1)] | None = None
    store: str | None = None

    def trials(self) -> Iterator[Trial]:
        """Every trial, so that whatever is made first can already be compared: contenders side by side."""
        for data_seed in self.data_seeds:
            for seed in self.seeds:
                for contender in self.contenders:
                    yield Trial(contender=contender, data_seed=data_seed, seed=seed)

    def pairs(self) -> list[tuple[str, str]]:
        """Who is compared with whom: the first of each pair minus the second."""
        names = list(self.contenders)
        if self.against == "first":
            return [(name, names[0]) for name in names[1:]]
        return [(later, earlier) for at, later in enumerate(names) for earlier in names[:at]]


def read(root: Path) -> Design | None:
    """The design of a comparison's folder; None where a folder is of none. MeshError for one that is damaged."""
    return read_as(Design, root / DESIGN, "comparison", SCHEMA)


def read_as(kind: type[Kind], path: Path, what: str, schema: int) -> Kind | None:
    """The file that a folder of many trials was begun with; None where there is none. MeshError as :func:`read`."""
    if not path.is_file():
        return None
    found = read_json(path)
    version = found.get("version") if found is not None else None
    if isinstance(version, int) and version > schema:
        raise MeshError(
            f"this {what} is of a newer version of kdmesh (its format is {version}, known is {schema})",
            file=str(path),
            instead="a newer kdmesh",
        )
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise MeshError(f"{where}: {first['msg']}", file=str(path), instead="put it back as it was") from None


def refuse_margin(equal: float | None, primary: str) -> None:
    """Refuse a margin that everything lies within, or nothing. ``primary``: the metric's name."""
    if equal is None:
        return
    from kdmesh.plugins import registry

    offer = registry().find("metrics", primary, "metrics")
    share = offer.lowest == 0 and offer.highest == 1
    if not equal > 0 or equal == float("inf") or (share and equal >= 0.1):
        unit = f"{offer.name} goes from 0 to 1: 0.005 is half a point" if share else f"in the unit of {offer.name}"
        raise MeshError(f"{equal:g} is no margin", where="--equal", instead=f"a number above 0; {unit}")
