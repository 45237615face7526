"""A run's ``answers.safetensors``: how every test sample was answered. Read with numpy alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import ANSWERS
from kdmesh.errors import MeshError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

FORMAT = 1
KINDS = {"score": "f", "decision": "i", "confidence": "f", "values": "f"}


@dataclass(frozen=True)
class Of:
    """How one agent or consensus answered N rows; None is of what the task does not have.

    Attributes:
        score: ``[N]`` float32, what each row adds to the run's primary metric, which is their mean; NaN for a row that
            does not count. None where the metric is no mean over rows.
        decision: ``[N]`` int32, the class that was answered, in the label space of the data; -1 where a consensus
            abstained, and then everything else is NaN.
        confidence: ``[N]`` float32, the probability of the decision at temperature 1.
        values: ``[N, T]`` float32, the answers themselves, of a task whose labels are values.
    """

    score: Array | None = None
    decision: Array | None = None
    confidence: Array | None = None
    values: Array | None = None


@dataclass(frozen=True)
class Answers:
    """The rows of the test stream, which are samples, or the words of samples (``ids`` then repeat).

    Attributes:
        ids: ``[N]`` int64, the sample that a row is of, by its row in the data set.
        labels: ``[N]`` int32 of classes; ``[N, ...]`` float32 of values or relevance, int32 of indicators.
        agents, consensus: who answered, in the order of the mesh.
        metric, higher: the metric by which the run compares, and whether more of it is better.
    """

    ids: Array
    labels: Array
    agents: dict[str, Of]
    consensus: dict[str, Of]
    metric: str
    higher: bool

    def score(self, name: str) -> Array | None:
        """What each sample adds to the primary metric, of an agent or consensus: ``[N]``, NaN where it does not count.

        None where there is none, or where rows are no samples.
        """
        import numpy as np

        one = self.agents.get(name) or self.consensus.get(name)
        if one is None or one.score is None or len(np.unique(self.ids)) < len(self.ids):
            return None
        return one.score


def read(folder: Path) -> Answers | None:
    """The answers in a run's folder; None where it has none.

    MeshError for a file that is damaged, or of a later version.
    """
    path = folder / ANSWERS
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            about = json.loads((file.metadata() or {}).get("kdmesh", "null"))
        if not isinstance(about, dict):
            raise ValueError("its metadata are not those of answers")
        if about["format"] != FORMAT:
            raise MeshError(
                f"is of format {about['format']!r}; this version reads format {FORMAT}",
                file=str(path),
                instead="the version of kdmesh that wrote it, or a later one",
            )
        return _answers(arrays, about)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise MeshError(
            f"cannot be read: {error or type(error).__name__}",
            file=str(path),
            instead="kdmesh resume RUN, which makes a part anew whose files are damaged",
        ) from None


def _answers(arrays: dict[str, Array], about: dict[str, Any]) -> Answers:
    """What the arrays of a file are; ValueError where they do not fit together."""
    ids, labels = arrays["ids"], arrays["labels"]
    if ids.ndim != 1 or ids.dtype.kind != "i" or len(labels) != len(ids):
        raise ValueError(f"ids {ids.shape} and labels {labels.shape} do not fit together")

    def of(name: str) -> Of:
        own = {what: arrays[f"{name}/{what}"] for what in KINDS if f"{name}/{what}" in arrays}
        for what, values in own.items():
            if len(values) != len(ids) or values.ndim != 1 + (what == "values") or values.dtype.kind != KINDS[what]:
                raise ValueError(f"{name}/{what} is {values.dtype} {values.shape}, of {len(ids)} rows")
        return Of(**own)

    return Answers(
        ids,
        labels,
        {str(name): of(name) for name in about["agents"]},
        {str(name): of(name) for name in about["consensus"]},
        str(about["metric"]),
        bool(about["higher_is_better"]),
    )
