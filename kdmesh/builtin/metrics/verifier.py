"""A function of one's own that says of each text how right it is: a plain mean, of no paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.metric import TextMetric
from kdmesh.imports import maker

if TYPE_CHECKING:
    from kdmesh.contracts.filter import WrittenText


class Verifier(TextMetric):
    """The mean of what the function at ``path`` says of each text: a bool, or a number; None: the text does not count.

    It is called with a :class:`kdmesh.filters.WrittenText` and the ``settings`` by name, and its annotation says that
    it returns a bool or a float.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        super().__init__()
        instead = "`def right(text, ...) -> bool:`, or `-> float:`"
        self._path, self._settings = path, settings
        self._call = maker(path, "metrics", (bool, float), "bool or float", instead=instead)

    def of(self, text: WrittenText) -> float | None:
        """What it says. ValueError, which names the sample, where it raises or gives no number."""
        try:
            found = self._call(text, **self._settings)
        except Exception as error:
            what = f"{self._path} raised {type(error).__name__}: {error}, on the text to {text.at}, {text.text!r:.60}"
            raise ValueError(what) from error
        if found is not None and (not isinstance(found, bool | int | float) or not math.isfinite(found)):
            raise ValueError(f"{self._path} gave {found!r:.40} for the text to {text.at}, which is no number")
        return None if found is None else float(found)
