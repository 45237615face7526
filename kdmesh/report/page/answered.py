"""How the test samples were answered: who agrees with whom, how far confidence can be believed, and where teachers
differ. Read from ``answers.safetensors``, of one seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.report import answers
from kdmesh.report.page.blocks import Block, Cell, Lines, Matrix, Section, Series, Table, Text, Value
from kdmesh.report.page.known import Known
from kdmesh.report.page.samples import shown

if TYPE_CHECKING:
    from kdmesh.report.answers import Answers, Of

BINS = 10
LEAST_IN_BIN = 5  # samples, below which a bin's share is chance
MOST = 20  # who stands in a matrix
MOST_SAMPLES = 30
MOST_CLASSES = 30


def section(known: Known, samples: bool = False) -> Section:
    """Agreement, reliability, confusion, gains by class, and where teachers differ; ``samples``: these themselves."""
    title = "How the test samples were answered"
    folder = next((one for one in known.run.runs.values() if one.summary is not None), None)
    if folder is None:
        return Section("answers", title, [Text(["Nothing has been answered yet."])])
    try:
        found = answers.read(folder.path)
    except MeshError as error:
        return Section("answers", title, [Text([f"{Path(error.file).name}: {error.what}."])])
    if found is None:
        return Section("answers", title, [Text(["This run did not record its answers."])])
    seed = f" Of seed {folder.summary.get('seed')}." if len(known.run.seed_numbers) > 1 and folder.summary else ""
    blocks: list[Block] = [Text([f"{len(found.ids):,} rows of the test split.{seed}"])]
    decided = _decided(known, found)
    if decided and found.labels.ndim == 1:
        blocks += [_agreement(decided), *_reliability(known, found), *_confusions(known, found, decided)]
        blocks += _gains(known, found, decided) + _differing(known, found, decided, samples)
    else:
        blocks.append(Text(["Its answers are no classes: agreement, reliability and confusion are not defined."]))
    return Section("answers", title, blocks)


def _decided(known: Known, found: Answers) -> dict[str, Any]:
    """Decisions by name, consensus and students first."""
    every = {**found.consensus, **found.agents}
    order = [name for name in known.nodes if name in every] + [name for name in every if name not in known.nodes]
    return {name: every[name].decision for name in order if every[name].decision is not None}


def _agreement(decided: dict[str, Any]) -> Matrix:
    names = list(decided)[:MOST]
    values = [[float((decided[a] == decided[b]).mean()) for b in names] for a in names]
    more = f" The first {MOST} of {len(decided)}." if len(decided) > MOST else ""
    return Matrix("Agreement", names, names, values, note=f"The share of test samples that two answer alike.{more}")


def _of(found: Answers) -> dict[str, Of]:
    return {**found.consensus, **found.agents}


def _reliability(known: Known, found: Answers) -> list[Block]:
    """The share that is right over the confidence, of each consensus and student; the diagonal is calibrated."""
    series = [Series("calibrated", [(0.0, 0.0, None, None), (1.0, 1.0, None, None)], "teacher")]
    for name, one in _of(found).items():
        if one.confidence is None or one.decision is None or known.nodes.get(name, {}).get("role") == "teacher":
            continue
        answered, points = one.confidence == one.confidence, []  # NaN where a consensus abstained
        right, sure = (one.decision == found.labels)[answered], one.confidence[answered]
        place = (sure * BINS).astype("int64").clip(0, BINS - 1)
        for at in range(BINS):
            within = place == at
            if within.sum() >= LEAST_IN_BIN:
                points.append((float(sure[within].mean()), float(right[within].mean()), None, None))
        series.append(Series(name, points, "consensus" if name in found.consensus else "student"))
    if len(series) < 2:
        return []
    note = (
        f"At temperature 1, {BINS} bins; bins of fewer than {LEAST_IN_BIN} samples are left out. Below the diagonal: "
    )
    note += "more confident than right."
    return [Lines("Reliability", "confidence of the answer", "share that is right", series[: MOST // 2], note)]


def _confusions(known: Known, found: Answers, decided: dict[str, Any]) -> list[Block]:
    """Counts of answers by label, of students."""
    size = 1 + int(max([found.labels.max(initial=0), *(one.max(initial=0) for one in decided.values())]))
    students = [name for name in known.students if name in decided][:4]
    if size > MOST_CLASSES:
        return [Text([f"{size} classes are too many for a confusion matrix here."])]
    import numpy as np

    blocks: list[Block] = []
    names = [str(at) for at in range(size)]
    for name in students:
        counts = np.zeros((size, size), dtype=np.int64)
        known_rows = found.labels >= 0
        np.add.at(counts, (found.labels[known_rows], decided[name][known_rows]), 1)
        blocks.append(Matrix(f"{name}: confusion", names, names, counts.tolist(), "label", "answered as", digits=0))
    return blocks


def _gains(known: Known, found: Answers, decided: dict[str, Any]) -> list[Block]:
    """By class, the share that each student has right, less what its best teacher has."""
    classes = [
        at for at in range(min(MOST_CLASSES, 1 + int(found.labels.max(initial=0)))) if (found.labels == at).any()
    ]
    rows: dict[str, list[float | None]] = {}
    for name in known.students[:MOST]:
        best = known.nodes[name].get("best_teacher")
        if name in decided and isinstance(best, str) and best in decided:
            rows[f"{name} minus {best}"] = [
                float((decided[name][of] == at).mean() - (decided[best][of] == at).mean())
                for at in classes
                for of in [found.labels == at]
            ]
    if not rows:
        return []
    note = (
        "The share of a class that the student has right, less that of its best teacher: one seed, few samples a class."
    )
    return [Matrix("Gains by class", list(rows), [str(at) for at in classes], list(rows.values()), "", "class", note)]


def _differing(known: Known, found: Answers, decided: dict[str, Any], samples: bool) -> list[Block]:
    """Samples on which teachers disagree most, with what each answered and what the students made of it."""
    import numpy as np

    teachers = [name for name in decided if known.nodes.get(name, {}).get("role") == "teacher"]
    if len(teachers) < 2:
        return []
    votes = np.stack([decided[name] for name in teachers])
    kinds = np.array([len(np.unique(one)) for one in votes.T])
    differ = np.flatnonzero(kinds > 1)
    said = Text([
        "Teachers differ on ", Value(len(differ), f"{len(differ):,}"), f" of {len(found.ids):,} rows; of these ",
        *_right(found, decided, differ, [*known.students[:3], *found.consensus]), "."
    ])  # fmt: skip
    ordered = differ[np.argsort(-kinds[differ], kind="stable")]
    order = ordered[:MOST_SAMPLES]
    names = [*teachers[:8], *[name for name in decided if name not in teachers][:8]]
    rows: list[list[Cell]] = []
    for at in order:
        cells: list[Cell] = [str(int(found.ids[at])), str(int(found.labels[at]))]
        for name in names:
            guess = int(decided[name][at])
            cells.append(f"{guess} ✓" if guess == int(found.labels[at]) else "none" if guess < 0 else str(guess))
        rows.append(cells)
    note = (
        f"{len(rows)} of {len(differ)}, those with most different answers first; ✓ is right. A sample's number is its "
    )
    note += "row in the data set; none: who abstained."
    if not rows:
        return [said]
    more = shown(known, found, ordered.tolist(), names) if samples else []
    return [said, *more, Table("Where teachers differ", ("sample", "label", *names), rows, note)]


def _right(found: Answers, decided: dict[str, Any], rows: Any, names: list[str]) -> list[str | Value]:
    words: list[str | Value] = []
    for name in names:
        if name in decided and len(rows):
            right = float((decided[name][rows] == found.labels[rows]).mean())
            words += [", " if words else "", f"{name} has ", Value(right, f"{right:.0%}")]
    return [*words, " right"] if words else ["nobody's answers are known"]
