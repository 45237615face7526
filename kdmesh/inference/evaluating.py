"""The figures of a trained agent on a user's own labelled file: those that its run reported."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from kdmesh.errors import FAULTS, MeshError
from kdmesh.hosts import metrics, paired, spoken
from kdmesh.hosts.by_column import ByColumn
from kdmesh.hosts.metrics import UNDEFINED
from kdmesh.inference.inputs import compares
from kdmesh.inference.trained import threads
from kdmesh.inference.truth import truth_of, values_of
from kdmesh.inference.writing import measured_texts
from kdmesh.plugins import registry
from kdmesh.spec.base import MetricRef

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.contracts.metric import Metric
    from kdmesh.inference.inputs import Inputs
    from kdmesh.inference.trained import Trained

PAIRS, TEXTS = "pairs", "texts"


def evaluate(
    trained: Trained,
    inputs: Inputs,
    by: list[str] | None = None,
    label: str | None = None,
    told: Callable[[int], None] = lambda done: None,
    cut: list[int] | None = None,
) -> dict[str, Any]:
    """The metrics that the run reported, of this file's samples and labels, by name.

    ``by``: columns of the file by whose values the primary one of its task is given too. ``label``: the column of
    labels, where this file calls it otherwise than the one that was learned. ``cut``: as of ``Trained.tokens``.
    MeshError for a file without labels.
    """
    asked, cut = _asked(trained), [] if cut is None else cut
    if trained.config.over == "drop" and isinstance(inputs.x, list):
        inputs = _whole(trained, inputs, cut)
        truth = truth_of(trained, inputs, label, [])
    else:
        truth = truth_of(trained, inputs, label, cut)
    columns = {name: values_of(inputs, name) for name in by or ()}
    figures: dict[str, Any] = {}
    if len(truth.y):
        scores = trained.scores(truth.x, told)
        numbers = {name: truth.each(at) for name, (_, at) in columns.items()}
        classes = trained.config.class_numbers
        total = None
        if classes is not None:
            total = max(int(truth.y.max()) + 1, *(number + 1 for number in classes))

        def on_error(key: str, error: BaseException) -> None:
            registry().attribute_error("metrics", key, error, f"on {inputs.path}", "metrics")

        found = _made(trained, asked.plain, {name: values for name, (values, _) in columns.items()})
        with threads(trained.config.threads):
            figures = metrics.measure(
                {key: metric for key, (metric, _) in found.items()},
                scores,
                truth.y.to(scores.device),
                characters=None if truth.characters is None else truth.characters.to(scores.device),
                classes=classes,
                total=total,
                columns={name: at.to(scores.device) for name, at in numbers.items()},
                on_error=on_error,
                single={key for key, (_, single) in found.items() if single},
            )
    elif not asked.texts:
        what = f"{inputs.path}: its samples are prompts alone, and no metric is of what {trained.config.agent} writes"
        raise MeshError(what, where=inputs.where, instead="a file with answers, too")
    parts = [figures, _of_texts(trained, inputs, asked, told), _of_pairs(trained, inputs, asked)]
    reasons = asked.left | {name: why for part in parts for name, why in part.pop(UNDEFINED, {}).items()}
    for part in parts[1:]:
        figures |= part
    return figures | ({UNDEFINED: reasons} if reasons else {})


def _whole(trained: Trained, inputs: Inputs, cut: list[int]) -> Inputs:
    """Without texts that the agent would read the beginning of alone, as its run left them out of all streams.

    To ``cut`` are added the numbers of these. MeshError where nothing is left.
    """
    assert isinstance(inputs.x, list)
    gone: list[int] = []
    for pairs in (False, True) if compares(trained) else (False,):
        trained.tokens(inputs.x, gone, pairs)
    cut += (left := sorted({*gone}))
    if len(left) == len(inputs):
        what = f"{inputs.path}: all of its texts are longer than the {trained.module.encoder.max_length} tokens"
        instead = "shorter ones: its run left such out (`text.over`)"
        raise MeshError(f"{what} that {trained.config.agent} reads", where=inputs.where, instead=instead)
    every = torch.ones(len(inputs), dtype=torch.bool)
    every[left] = False
    return inputs.only(every.nonzero().flatten().tolist()) if left else inputs


@dataclass
class _Asked:
    """The metrics of a run: of labels, of texts that are written, of two answers, and why others are left out."""

    plain: list[MetricRef]
    texts: list[MetricRef]
    pairs: list[MetricRef]
    left: dict[str, str]


def _asked(trained: Trained) -> _Asked:
    """What is measured of a file."""
    found = _Asked([], [], [], {})
    for named in trained.config.metrics or list(trained.offer.metrics):
        try:
            ref = MetricRef.model_validate(named)
        except ValidationError:
            what = f"its folder is damaged: {str(named)[:40]} names no metric"
            raise MeshError(what, file=str(trained.root), where="metrics", instead="a complete copy of it") from None
        needs, writes = {*registry().find("metrics", ref.name, "metrics").needs}, trained.config.writes
        if ref.by:
            found.left[ref.key] = f"of a file it is measured with --by {ref.by}"
        elif ref.of:
            found.left[ref.key] = f"it compares with {ref.of}, another agent of its run"
        elif needs & {PAIRS, TEXTS} and writes is None:
            found.left[ref.key] = "its folder does not say how texts were measured"
        elif TEXTS in needs and writes is not None and not writes.decoding.greedy:
            found.left[ref.key] = "its run drew texts by its own seed (`text.decoding`)"
        elif TEXTS in needs and not trained.continues:
            found.left[ref.key] = "an exported file writes no texts"
        elif "characters" in needs and trained.offer.rows != "units":
            continue
        else:
            (found.texts if TEXTS in needs else found.pairs if PAIRS in needs else found.plain).append(ref)
    return found


def _of_texts(trained: Trained, inputs: Inputs, asked: _Asked, told: Callable[[int], None]) -> dict[str, Any]:
    """What metrics of texts say of those that the agent writes to the prompts, and some of these."""
    if not asked.texts:
        return {}
    texts = measured_texts(trained, inputs, told)
    rows = spoken.as_rows(texts)
    found = metrics.at_once(((ref, rows) for ref in asked.texts), registry(), f"on {inputs.path}")
    return found | {TEXTS: spoken.shown(texts)}


def _of_pairs(trained: Trained, inputs: Inputs, asked: _Asked) -> dict[str, Any]:
    """What metrics of pairs say of both answers to each prompt."""
    if not asked.pairs:
        return {}
    assert isinstance(inputs.x, list) and trained.config.writes is not None
    texts = trained.tokens(inputs.x, pairs=True).to(trained.device)
    with threads(trained.config.threads):
        rows = paired.as_rows(paired.of_answers(trained.scores(texts, rows=trained.config.writes.rows), texts))
    return metrics.at_once(((ref, rows) for ref in asked.pairs), registry(), f"on {inputs.path}")


def _made(trained: Trained, asked: list[MetricRef], values: dict[str, list[str]]) -> dict[str, tuple[Metric, bool]]:
    """Metrics of labels, fresh, by name, each with whether it is one number."""
    found: dict[str, tuple[Metric, bool]] = {}
    for ref in asked:
        found[ref.key] = _one(ref.name, ref.settings), registry().find("metrics", ref.name).scalar
    first = trained.offer.primary
    settings = next((ref.settings for ref in asked if ref.name == first), {})
    for column, known in values.items():
        higher = registry().find("metrics", first).higher
        found[f"{first}_by_{column}"] = ByColumn(first, column, known, partial(_one, first, settings), higher), False
    return found


def _one(name: str, settings: dict[str, Any]) -> Metric:
    try:
        made: Metric = registry().find("metrics", name).make(settings)
        return made
    except FAULTS as error:
        registry().attribute_error("metrics", name, error, "to be made", "metrics")
