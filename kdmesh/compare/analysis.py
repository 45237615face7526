"""What finished trials show: pure arithmetic over their summaries."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from kdmesh.report.paired import on_test, over_seeds
from kdmesh.statistics import Difference, OverSamples, interval, over_paired_samples, paired, verdicts
from kdmesh.tasks import compared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from kdmesh.compare.design import Design, Trial
    from kdmesh.tasks import Figure

    Scores = Callable[[Trial, str], "np.ndarray[Any, Any] | None"]

Summary = dict[str, Any]


def analyse(
    design: Design,
    summaries: Mapping[Trial, Summary],
    failed: Mapping[Trial, str] | None = None,
    scores: Scores = lambda trial, agent: None,
) -> dict[str, Any]:
    """The table of a comparison, as ``comparison.json`` holds it.

    Pairs are made of trials of one seed on one split. With several splits every split gives one difference and one
    figure, the mean over its seeds, since seeds on one split are not independent of each other.
    ``scores(trial, agent)``: what each test sample scored ``[samples]``, NaN for one that does not count; None where
    that was not recorded.
    """
    by = compared(next(iter(summaries.values()), {}))
    values = {trial: _figure(design, trial, summary, by) for trial, summary in summaries.items()}
    rows, pairs = [], []
    for name in design.contenders:
        own = {trial: value for trial, value in values.items() if trial.contender == name and value is not None}
        agent = design.contenders[name].agent
        row: dict[str, Any] = {"contender": name, "agent": agent, "differs": design.contenders[name].differs}
        if own:
            row["mean"], row["half_width"] = interval(_units(design, own), design.shared)
        if rewards := _rewards(design, name, summaries):
            row["rewards"] = rewards
        if lacks := _no_control(design, name, summaries):
            row["no_control"] = lacks
        rows.append({**row, "n": len(own), "controls": _controls(design, name, summaries)})
    for one, other in design.pairs():
        found = _paired(design, one, other, values, by)
        pairs.append((one, other, found, _samples(design, one, other, values, scores)))
    known = [found for _, _, found, _ in pairs if found is not None]
    words = iter(verdicts(known, by, design.equal))
    return {
        "version": 1,
        "task": next(iter(summaries.values())).get("task") if summaries else None,
        "metric": by.name,
        "higher_is_better": by.higher,
        "seeds": design.seeds,
        "data_seeds": design.data_seeds,
        "equal": design.equal,
        "unit": "split" if len(design.data_seeds) > 1 else "seed",
        "contenders": rows,
        "differences": [
            {
                "contender": one,
                "against": other,
                **({} if found is None else {**found, **next(words)}),
                **({} if samples is None else {"over_samples": samples}),
                "lacks": None if found is not None else "no trial of both is whole",
            }
            for one, other, found, samples in pairs
        ],
        "trials": [
            {"contender": trial.contender, "data_seed": trial.data_seed, "seed": trial.seed, "value": value}
            for trial, value in values.items()
        ],
        "failed": {str(trial): error for trial, error in (failed or {}).items()},
    }


def _units(design: Design, own: Mapping[Trial, float]) -> list[float]:
    """What varies independently: figures of seeds on one split, else the mean over the seeds of each split."""
    if len(design.data_seeds) == 1:
        return list(own.values())
    found: dict[int, list[float]] = {}
    for trial, value in own.items():
        found.setdefault(trial.data_seed, []).append(value)
    return [fmean(values) for values in found.values()]


def _rewards(design: Design, name: str, summaries: Mapping[Trial, Summary]) -> dict[str, Any]:
    """The mean reward of what agents wrote for each stream of a contender, over its trials."""
    found: dict[str, dict[Trial, float]] = {}
    for trial, summary in summaries.items():
        for stream, told in (summary.get("streams") or {}).items() if trial.contender == name else ():
            if (average := (told.get("reward") or {}).get("average")) is not None:
                found.setdefault(stream, {})[trial] = average
    return {
        stream: dict(zip(("mean", "half_width"), interval(_units(design, own), design.shared), strict=True))
        | {"n": len(own)}
        for stream, own in found.items()
    }


def _figure(design: Design, trial: Trial, summary: Summary, by: Figure) -> float | None:
    return on_test(summary["agents"].get(design.contenders[trial.contender].agent), by)


def _paired(
    design: Design, one: str, other: str, values: Mapping[Trial, float | None], by: Figure
) -> Difference | None:
    """The differences of two contenders; None where no trial of both is whole."""
    a: list[float] = []
    b: list[float] = []
    for both in _blocks(design, one, other, values):
        if len(design.data_seeds) > 1:
            a.append(fmean(x for x, _ in both))
            b.append(fmean(y for _, y in both))
        else:
            a += [x for x, _ in both]
            b += [y for _, y in both]
    return paired(a, b, by, design.shared) if a else None


def _blocks(
    design: Design, one: str, other: str, values: Mapping[Trial, float | None]
) -> list[list[tuple[float, float]]]:
    """Per split, the figures of both in the seeds that both have."""
    found: dict[int, dict[int, dict[str, float]]] = {}
    for trial, value in values.items():
        if value is not None and trial.contender in (one, other):
            found.setdefault(trial.data_seed, {}).setdefault(trial.seed, {})[trial.contender] = value
    blocks = [
        [(by[one], by[other]) for by in found.get(data_seed, {}).values() if len(by) == 2]
        for data_seed in design.data_seeds
    ]
    return [block for block in blocks if block]


def _samples(
    design: Design, one: str, other: str, values: Mapping[Trial, float | None], scores: Scores
) -> OverSamples | None:
    """How far the mean difference may be the test set's own chance; None where samples' scores are not recorded.

    Of one split alone: another split has other test samples.
    """
    if len(design.data_seeds) > 1:
        return None
    found: dict[int, dict[str, Trial]] = {}
    for trial in values:
        if trial.contender in (one, other):
            found.setdefault(trial.seed, {})[trial.contender] = trial
    return over_paired_samples(
        (scores(both[one], design.contenders[one].agent), scores(both[other], design.contenders[other].agent))
        for both in found.values()
        if len(both) == 2
    )


def _controls(design: Design, name: str, summaries: Mapping[Trial, Summary]) -> list[dict[str, Any]]:
    """The verdicts of a contender's agent against its own controls, over the seeds of the first split."""
    own = _first_split(design, name, summaries)
    if not own or not design.controls:
        return []
    made: list[dict[str, Any]] = over_seeds(own)["verdicts"]
    return [row for row in made if row["agent"] == design.contenders[name].agent]


def _no_control(design: Design, name: str, summaries: Mapping[Trial, Summary]) -> dict[str, str]:
    """Why a control of a contender's agent could not be made, by control; the first reason of its trials."""
    found: dict[str, str] = {}
    for summary in _first_split(design, name, summaries):
        made = (summary.get("controls") or {}).get(design.contenders[name].agent) or {}
        for which, figures in made.items():
            if "skipped" in figures:
                found.setdefault(which, str(figures["skipped"]))
    return found


def _first_split(design: Design, name: str, summaries: Mapping[Trial, Summary]) -> list[Summary]:
    """The summaries of a contender's trials on the first split."""
    return [
        summary
        for trial, summary in summaries.items()
        if trial.contender == name and trial.data_seed == design.data_seeds[0]
    ]
