"""Gradient boosting of LightGBM, in the text form of its own, which is data alone, as a frozen agent.

G. Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdmesh.builtin.models._file import FileModel

KINDS = re.compile(r"binary|multiclass|regression(_l1)?")
"""Objectives whose answers are known to be probabilities or values, as the file names them."""


class LightgbmFile(FileModel):
    """See the module. Classes are numbered as the data's are."""

    name, library, extra = "lightgbm", "lightgbm", "lightgbm"

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        path: Path,
        size: int | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        super().__init__(path, size, input_shape, classes, labels)

    def open(self, content: bytes) -> Any:
        """The booster."""
        import lightgbm

        text = content.decode()
        objective = next((line for line in text.splitlines() if line.startswith("objective=")), "objective=none")
        kind = objective.partition("=")[2].split(" ")[0]
        if not KINDS.fullmatch(kind):
            raise self._wrong(f"has the objective {kind}", f"one of {KINDS.pattern.replace('|', ', ')}")
        return lightgbm.Booster(model_str=text), kind

    def answers(self, model: Any, x: np.ndarray) -> np.ndarray:
        """Logarithms of probabilities, or values."""
        booster, kind = model
        found = np.asarray(booster.predict(x.reshape(len(x), -1), num_threads=torch.get_num_threads()))
        if kind == "binary":
            return self._log(np.stack([1 - found, found], axis=1))
        return self._log(found) if kind == "multiclass" else found.reshape(len(x), -1)
