"""What `prepare` has learned of train, and its use: cells or values become the samples that a model sees.

Fitting is :mod:`kdmesh.tables.fitting`; this is arithmetic on what it found, row by row, so that a sample is prepared
alike wherever and beside whatever it stands.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from kdmesh.errors import MeshError, quoted, text_of
from kdmesh.files import read
from kdmesh.streams.cells import Cells, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SETTINGS, NUMBERS = "prepare.json", "prepare.safetensors"
"""The files that hold it: what is done to which columns, and the numbers by which."""
FILL = "fill"
ENCODE = "`encode` for this column"
MOST = 2**26  # bytes of the settings that are read: categories take most of them
LARGEST = torch.finfo(torch.float32).max
BY = {"standard": ("shift", "by"), "robust": ("shift", "by"), "maxabs": ("by",), "minmax": ("times", "plus")}
"""The numbers of each way to scale."""


@dataclass
class Group:
    """What is done to some columns: ``asked`` are the settings of the file; of train were found ``numbers``, one of
    each column (``fill``, ``shift`` ...), ``fills``, the word that fills a gap, and ``categories``, in order.

    ``gaps``: whether a column had a gap in train, and so has an indicator.
    """

    asked: dict[str, Any]
    columns: list[str]
    gaps: list[bool] = field(default_factory=list)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    fills: list[str] = field(default_factory=list)
    categories: list[list[str]] = field(default_factory=list)

    @property
    def imputes_numbers(self) -> bool:
        """Whether a number fills gaps."""
        return self.asked.get("impute") is not None and not self.asked.get("encode")

    def empty(self, cells: Cells) -> list[str]:
        """The columns of which every cell is a gap, each with what it becomes, in words."""
        missing, found = self.asked.get("missing", ()), []
        for place, name in enumerate(self.columns):
            if any(one is not None for one in cells.words(name, missing)):
                continue
            if self.fills or FILL in self.numbers:
                by = repr(self.fills[place]) if self.fills else f"{self.numbers[FILL][place]:g}"
                found.append(f"{name} (filled with {by})")
            else:
                found.append(f"{name} (none of its categories)")
        return found

    def outputs(self) -> list[str]:
        """What the columns are called that it gives."""
        flags = [f"{name} is missing" for name, there in zip(self.columns, self.gaps, strict=False) if there]
        match self.asked.get("encode"):
            case "one_hot":
                pairs = zip(self.columns, self.categories, strict=True)
                return [*(f"{name}={one}" for name, known in pairs for one in known), *flags]
            case "hash":
                every = range(self.asked["outputs"])
                return [*(f"{name}#{number}" for name in self.columns for number in every), *flags]
        return [*self.columns, *flags]

    def of_cells(self, cells: Cells, learned: bool) -> np.ndarray:
        """The columns that it gives, ``[N, D]`` float64.

        ``learned``: the cells are of a file that comes after training, so that no setting can be changed any more.
        """
        missing = self.asked.get("missing", ())
        if self.asked.get("encode"):
            words = [cells.words(name, missing) for name in self.columns]
            empty = np.array([[one is None for one in column] for column in words], dtype=bool).T
            found = np.concatenate(
                [self._encoded(place, column, cells, learned) for place, column in enumerate(words)], 1
            )
        else:
            instead = "" if learned else ENCODE
            found = cells.values(self.columns, missing, instead)
            empty = np.isnan(found)
            found = self._filled(found, empty, cells, learned)
        flags = empty[:, np.array(self.gaps, dtype=bool)] if any(self.gaps) else np.empty((len(found), 0))
        values = self.scaled(found)
        for row, place in np.argwhere(np.abs(values) > LARGEST).tolist():  # no word becomes such a number
            scaled = f" becomes {values[row, place]:g}, which" if self.asked.get("scale") else ""
            what = f"{found[row, place]:g}{scaled} is not finite in float32"
            cells.refuse(row, self.columns[place], what, "a smaller number")
        return np.concatenate([values, flags], axis=1)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Values ``[..., C]``, scaled by what was found of train."""
        numbers = self.numbers
        match self.asked.get("scale"):
            case "standard" | "robust":
                return (values - numbers["shift"]) / numbers["by"]
            case "maxabs":
                return values / numbers["by"]
            case "minmax":
                return values * numbers["times"] + numbers["plus"]
        return values

    def undone(self, values: np.ndarray) -> np.ndarray:
        """Values ``[..., C]`` as they were before they were scaled."""
        numbers = self.numbers
        match self.asked.get("scale"):
            case "standard" | "robust":
                return values * numbers["by"] + numbers["shift"]
            case "maxabs":
                return values * numbers["by"]
            case "minmax":
                return (values - numbers["plus"]) / numbers["times"]
        return values

    def _filled(self, values: np.ndarray, empty: np.ndarray, cells: Cells, learned: bool) -> np.ndarray:
        if not empty.any():
            return values
        if FILL not in self.numbers:
            row, place = (int(one[0]) for one in empty.nonzero())
            _refuse_gap(cells, row, self.columns[place], "impute: median", learned)
        return np.where(empty, self.numbers[FILL], values)

    def _encoded(self, place: int, column: list[str | None], cells: Cells, learned: bool) -> np.ndarray:
        name, by = self.columns[place], self.asked["encode"]
        words = [self.fills[place] if one is None else one for one in column] if self.fills else column
        bare = next((row for row, one in enumerate(words) if one is None), None)
        if bare is not None and not (self.gaps and self.gaps[place]) and self.asked.get("unseen") != "ignore":
            remedy = "impute: most_frequent" if by == "ordinal" else "impute: most_frequent, or indicator: true"
            _refuse_gap(cells, bare, name, remedy, learned)
        return self._hashed(words) if by == "hash" else self._known(place, words, cells, learned)

    def _known(self, place: int, words: Sequence[str | None], cells: Cells, learned: bool) -> np.ndarray:
        """Words by their place among the column's categories, as zeros and a 1, or as the place itself."""
        known = {one: number for number, one in enumerate(self.categories[place])}
        at = np.array([-1 if one is None else known.get(one, -1) for one in words])
        if self.asked.get("unseen") != "ignore":
            odd = next((row for row, one in enumerate(words) if one is not None and one not in known), None)
            if odd is not None:
                what = f"{quoted(words[odd])} is none of the {len(known)} categories of train"
                instead = "one of these, or an agent trained with `unseen: ignore`" if learned else "unseen: ignore"
                cells.refuse(odd, self.columns[place], what, instead)
        if self.asked["encode"] == "ordinal":
            return at[:, None].astype(np.float64)
        return (at[:, None] == np.arange(len(known))).astype(np.float64)

    def _hashed(self, words: Sequence[str | None]) -> np.ndarray:
        """Words by their hash, each 1 or -1 in one column: Weinberger et al., Feature Hashing, 2009."""
        from sklearn.feature_extraction import FeatureHasher

        distinct = {one: number for number, one in enumerate(dict.fromkeys(words))}
        hasher = FeatureHasher(self.asked["outputs"], input_type="string")
        rows = hasher.transform([[] if one is None else [one] for one in distinct]).toarray()
        found: np.ndarray = rows[[distinct[one] for one in words]]
        return found


@dataclass
class Prepared:
    """How the samples of one data set are prepared, for all agents or for one.

    ``columns``: those of the source that are read, in its order; ``shape``: of a sample there; ``groups``: in the
    order of the file, each giving its columns after those of the one before. Images have one, of their channels.
    """

    columns: list[str]
    shape: list[int]
    groups: list[Group]
    fitted: int = 0  # on how many samples
    example: tuple[list[str], list[str]] = ([], [])  # the first of these, before and after, in words; not saved

    @cached_property
    def outputs(self) -> list[str]:
        """What the values of a prepared sample are called; images have no names."""
        return [] if len(self.shape) > 1 else [name for group in self.groups for name in group.outputs()]

    @property
    def words(self) -> list[str]:
        """The columns that are read as words."""
        return [name for group in self.groups if group.asked.get("encode") for name in group.columns]

    def known(self, name: str) -> list[str]:
        """The categories of a column; none of one that is hashed, or has numbers."""
        found = (group for group in self.groups if name in group.columns and group.categories)
        return next((group.categories[group.columns.index(name)] for group in found), [])

    @property
    def fills(self) -> bool:
        """Whether it fills gaps of numbers."""
        return any(group.imputes_numbers for group in self.groups)

    def empty(self, cells: Cells, of: str) -> list[str]:
        """What is to be said of columns that have nothing in several rows, which are all ``of`` something."""
        found = [said for group in self.groups for said in group.empty(cells)] if len(cells) > 1 else []
        return [f"every cell of {of} is empty in {', '.join(found)}"] if found else []

    def of_cells(self, cells: Cells, learned: bool = True) -> Tensor:
        """Samples ``[N, F]`` float32 of cells. MeshError that names the cell which cannot be one."""
        parts = []
        for number, group in enumerate(self.groups):
            where = cells.where if learned or not group.asked else f"{cells.where}.{number}"
            parts.append(group.of_cells(replace(cells, where=where), learned))
        found = np.concatenate(parts, axis=1)
        return torch.from_numpy(found).float().contiguous()

    def of_values(self, x: Tensor, where: str = "samples") -> Tensor:
        """Samples ``[N, ...]`` float32 of values as the source has them, ``x [N, ...]`` of ``shape``."""
        if len(self.shape) == 1:
            return self.of_cells(Values.of(x, self.columns, where))
        return self._moved(x, self.groups[0].scaled)

    def of_pixels(self, x: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` float32 of pixels as the data have them."""
        return self._moved(x.detach().cpu(), self.groups[0].scaled).to(x.device)

    def pixels(self, x: Tensor) -> Tensor:
        """The pixels of prepared images ``[N, C, H, W]``, as the data have them but for rounding."""
        return self._moved(x.detach().cpu(), self.groups[0].undone).to(x.device)

    def _moved(self, x: Tensor, by: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        """Images, each channel by the numbers that are its own."""
        moved = by(x.numpy().swapaxes(1, -1).astype(np.float64)).swapaxes(1, -1)
        return torch.from_numpy(np.ascontiguousarray(moved)).float()

    def files(self) -> dict[str, bytes]:
        """It as files, by name: JSON, and the numbers as safetensors."""
        about = {
            "columns": self.columns,
            "shape": self.shape,
            "fitted": self.fitted,
            "groups": [
                {
                    "asked": one.asked,
                    "columns": one.columns,
                    "gaps": one.gaps,
                    "fills": one.fills,
                    "categories": one.categories,
                }
                for one in self.groups
            ],
        }
        numbers = {f"{at}.{name}": values for at, one in enumerate(self.groups) for name, values in one.numbers.items()}
        return {SETTINGS: (json.dumps(about, indent=1) + "\n").encode(), NUMBERS: save(numbers)}

    @classmethod
    def read(cls, root: Path) -> Prepared | None:
        """What a folder holds of it; None where it has none. MeshError for files that are damaged."""
        if not (root / SETTINGS).is_file():
            return None
        try:
            about = json.loads(read(root / SETTINGS, most=MOST))
            numbers = load((root / NUMBERS).read_bytes())
            found = cls(about["columns"], about["shape"], [Group(**one) for one in about["groups"]], about["fitted"])
            for at, group in enumerate(found.groups):
                group.numbers = {
                    name.partition(".")[2]: values for name, values in numbers.items() if name.startswith(f"{at}.")
                }
            found._refuse_damaged()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
            what = f"{SETTINGS} is damaged: {type(error).__name__}: {text_of(error)}"
            raise MeshError(what, file=str(root), instead="a complete copy of the folder") from None
        return found

    def _refuse_damaged(self) -> None:
        """ValueError where the parts do not fit each other."""
        for group in self.groups:
            count = len(group.columns) or self.shape[0]
            needs = [*BY.get(group.asked.get("scale", ""), ()), *([FILL] if group.imputes_numbers else [])]
            sizes = {name: group.numbers[name].shape for name in needs}
            lists = [group.categories] if group.asked.get("encode") in ("one_hot", "ordinal") else []
            if any(shape != (count,) for shape in sizes.values()) or any(len(one) != count for one in lists):
                raise ValueError(f"{sizes} for {count} columns")
            if (group.gaps and len(group.gaps) != count) or (group.fills and len(group.fills) != count):
                raise ValueError(f"gaps of another number than {count} columns")
            if not {*group.columns} <= {*self.columns}:
                raise ValueError("columns that it does not read")


def _refuse_gap(cells: Cells, row: int, column: str, remedy: str, learned: bool) -> NoReturn:
    instead = (
        "a value in every row: it fills no gaps of this column" if learned else f"{{columns: [{column}], {remedy}}}"
    )
    cells.refuse(row, column, "an empty cell", instead)
