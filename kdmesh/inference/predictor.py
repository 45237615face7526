"""``kdmesh.load(...).predict(...)``: values as a user has them in Python, answers in the words of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.inference.inputs import images_at
from kdmesh.inference.numbers import Unfit, native, taken
from kdmesh.inference.predictions import Predictions, predict
from kdmesh.streams.cells import Cells
from kdmesh.streams.texts import Sample

if TYPE_CHECKING:
    from kdmesh.inference.trained import Trained
    from kdmesh.streams.unread import Unread


class Predictor:
    """Asks a loaded module; see :meth:`__call__`. It is what ``predict`` is of a module that ``kdmesh.load`` gives."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    def __call__(self, samples: Any, *, most: int = 64) -> Predictions:
        """Answer samples in eval mode, without gradient, whatever mode the module is in.

        Args:
            samples: A tensor or array ``[N, ...]`` of what was learned; a list of texts, of :class:`Sample`, or of
                paths of images; or rows, dictionaries with a value for each column that was learned, others are not
                looked at; a text and its candidates where these are ranked.
            most: Tokens of an answer, where the agent writes texts.

        Returns:
            Predictions: Names of classes, probabilities and scores; see there.

        Raises:
            MeshError: For samples that are none of this agent's: another shape, a column that is missing, a number that
                is none or not finite.
        """
        return predict(self.trained, self._samples(samples), most=most)

    def _samples(self, given: Any) -> Tensor | Unread | list[Sample]:
        trained = self.trained
        if isinstance(given, str | bytes | Mapping):
            raise self._wrong(f"found one {type(given).__name__}", "a list of samples")
        rows = list(given) if isinstance(given, Sequence) else given
        files = isinstance(rows, list) and rows and all(isinstance(one, str | Path) for one in rows)
        if files and trained.config.images is not None:
            return images_at([Path(one) for one in rows], trained)
        if isinstance(rows, list) and rows and all(isinstance(one, Mapping) for one in rows):
            return self._texts_of(rows) if trained.is_text else self._numbers_of(rows)
        if trained.is_text:
            if not isinstance(rows, list) or not all(isinstance(one, str | Sample) for one in rows):
                raise self._wrong(f"found {type(given).__name__}", "a list of texts, or of rows with its columns")
            if trained.ranks and any(isinstance(one, str) for one in rows):
                raise self._wrong("found a text alone", "rows of a query and its candidates")
            found = [self._sample(one, at) for at, one in enumerate(rows)]
            personal = self.trained.personal
            return found if personal is None else [one for one, _ in personal.samples(found)]
        return self._array(rows)

    def _sample(self, given: str | Sample, number: int) -> Sample:
        """A text that a user gives, with where it stands."""
        if isinstance(given, str):
            return self.trained.told(given, f"text {number}")
        tagged = () if self.trained.tags and given.spans is None else given.spans
        return replace(given, spans=tagged, at=given.at or f"text {number}")

    def _array(self, given: Any) -> Tensor:
        try:
            x = torch.as_tensor(native(given) if isinstance(given, np.ndarray) else given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self._wrong(str(error), "numbers, [N, ...]") from None
        made, wanted = self.trained.prepared, self.trained.wanted
        if made is not None and made.words:
            raise self._wrong(f"it reads words: {', '.join(made.words[:5])}", "rows, with a value for each column")
        if x.dim() == 0 or (not self.trained.fits(x.shape) and x.numel()):
            raise self._wrong(f"found shape {list(x.shape)}", wanted)
        if x.is_complex():
            raise self._wrong(f"found {x.dtype}", f"numbers, {wanted}")
        own = x.shape[1:] if x.numel() else self.trained.given_shape
        found = taken(x.reshape(len(x), *own), self.trained.divided_by, made is not None and made.fills)
        if isinstance(found, Unfit):
            raise self._wrong(f"row {found.row}: {found.what}", found.instead)
        return self.trained.as_seen(found, "samples")

    def _numbers_of(self, rows: Sequence[Mapping[str, Any]]) -> Tensor:
        columns = self.trained.config.columns
        if not columns:
            raise self._wrong("found rows with names", "an array: what it learned has no names of columns")
        if self.trained.prepared is not None:
            return self.trained.prepared.of_cells(self._cells(rows, columns))
        return self._array([[self._number(row, at, name) for name in columns] for at, row in enumerate(rows)])

    def _cells(self, rows: Sequence[Mapping[str, Any]], columns: list[str]) -> Cells:
        """The columns that it learned from, of rows; a value may be None where it is not known."""
        for at, row in enumerate(rows):
            for name in columns:
                if name not in row:
                    every = ", ".join(columns)
                    raise self._wrong(f"row {at} has no {name!r}", f"a value for each of {every}, None if unknown")

        def number(cell: Any) -> float | None:
            try:
                return float(cell)
            except (TypeError, ValueError):
                return None

        found = {name: [self._cell(row[name], at, name) for at, row in enumerate(rows)] for name in columns}
        if (personal := self.trained.personal) is not None:
            found = {name: [personal.cell(name, one, number) for one in cells] for name, cells in found.items()}
        return Cells(found, number, lambda row, name: f"row {row}, {name!r}", "samples")

    def _cell(self, value: Any, at: int, name: str) -> Any:
        """A value as its source had it; true and false, which files write in several ways, as the one that is known."""
        value, made = value.item() if isinstance(value, np.generic) else value, self.trained.prepared
        if not isinstance(value, bool) or made is None or name not in made.words:
            return value
        known = [one for one in made.known(name) if one.lower() == str(value).lower()]
        if len(known) != 1:
            what = f"row {at}, {name!r}: {value}, which it learned as a word"
            raise self._wrong(what, "the word of its file, 'true' or 'True'")
        return known[0]

    def _number(self, row: Mapping[str, Any], at: int, name: str) -> float:
        try:
            return float(row[name])
        except KeyError:
            every = ", ".join(self.trained.config.columns or ())
            raise self._wrong(f"row {at} has no {name!r}", f"a value for each of {every}") from None
        except (TypeError, ValueError):
            raise self._wrong(f"row {at}, {name!r}: {row[name]!r:.40} is no number", "a number") from None

    def _texts_of(self, rows: Sequence[Mapping[str, Any]]) -> list[Sample]:
        reads = self.trained.reads
        if odd := next((one for one in ("messages", "tools") if one in reads), None):
            raise self._wrong(f"it reads {odd}", "a list of kdmesh.streams.texts.Sample")
        roles = {role: reads[role] for role in ("text", "pair", "prompt", "query") if role in reads}
        if self.trained.writes and "prompt" in roles:
            roles.pop("text", None)
        for at, row in enumerate(rows):
            for column in roles.values():
                if not isinstance(row.get(column), str):
                    raise self._wrong(f"row {at} has no text {column!r}", f"a text for {', '.join(roles.values())}")
        more: dict[str, Any] = {"spans": ()} if self.trained.tags else {}
        return [
            Sample(
                **{"text" if role == "query" else role: row[column] for role, column in roles.items()},
                **({"candidates": self._candidates(row, at, reads)} if self.trained.ranks else more),
                at=f"row {at}",
            )
            for at, row in enumerate(rows)
        ]

    def _candidates(self, row: Mapping[str, Any], at: int, reads: Mapping[str, Any]) -> tuple[str, ...]:
        """The texts that are put in order."""
        column = reads.get("candidates", "candidates")
        found = row.get(column)
        if not isinstance(found, list | tuple) or not found or not all(isinstance(one, str) for one in found):
            raise self._wrong(f"row {at} has no texts {column!r}", "a list of texts, one or more")
        return tuple(found)

    def _wrong(self, found: str, instead: str) -> MeshError:
        return MeshError(f"{self.trained.config.agent}.predict: {found}", where="samples", instead=instead)
