"""A small training set, chosen by what teachers say of each sample, and written for later meshes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import MeshError
from kdmesh.files import write_json
from kdmesh.graph.edges import LABELS
from kdmesh.selection.asking import TRAIN, Answers, ask
from kdmesh.selection.choosing import first, ranked
from kdmesh.selection.criterion import Asked, Chosen
from kdmesh.selection.offers import RANDOM, criteria
from kdmesh.streams.selected import FORMAT
from kdmesh.streams.splits import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from kdmesh.graph.plan import Plan

VALUES = 2**24  # numbers of all agents that are compared at a time


def select(
    plan: Plan,
    by: dict[str, dict[str, Any]],
    keep: float,
    *,
    teachers: Sequence[str] = (),
    student: str | None = None,
    stream: str = TRAIN,
    seed: int = 0,
    stratify: bool = True,
    store: str | None = None,
    table: Any = None,
) -> tuple[Chosen, dict[str, Any]]:
    """Choose ``keep`` samples of a training stream: the choice, and the record of it that a file holds.

    ``by``: criteria by name with their settings; ``{"random": {}}`` alone draws. ``keep``: how many, or a share.
    ``teachers``: by default the frozen agents. MeshError for what cannot be chosen by, or from.
    """
    made = criteria({name: settings for name, settings in by.items() if name != RANDOM})
    if not by or (RANDOM in by and len(by) > 1):
        what = "no criterion" if not by else "random beside others"
        raise MeshError(what, where="--by", instead="random alone, or others")
    if plan.task.labels != "classes":
        what = f"answers of the task {plan.task.name} are no distributions over classes"
        raise MeshError(what, where="task", instead="a task that answers with classes or tokens")
    agents, student = _agents(plan, made, teachers, student)
    answers = ask(plan, [*agents, *([student] if student else [])], stream, store, table)
    count = count_of(keep, len(answers.ids), "--keep")
    if not 0 < count < len(answers.ids):
        what = f"{count} of {len(answers.ids)} samples"
        raise MeshError(what, where="--keep", instead="fewer than there are, and one at least")
    scores = {name: _scored(name, one, answers, agents, student, seed) for name, one in made.items()}
    order = ranked(scores, len(answers.ids), seed)
    at = first(order, count, answers.classes if stratify else None)
    chosen = Chosen(answers.ids[at], {name: one[at] for name, one in scores.items()})
    how = {"by": by, "agents": agents, "student": student, "seed": seed, "stratify": stratify}
    return chosen, _record(plan, answers, chosen, stream, how)


def write_selection(path: Path, record: dict[str, Any]) -> None:
    """Write a selection, for `select` of a stream."""
    write_json(path, record)


def _agents(
    plan: Plan, made: dict[str, Any], teachers: Sequence[str], student: str | None
) -> tuple[list[str], str | None]:
    """Who is asked as a teacher and as the student: no one that no criterion needs."""
    needs = {need for one in made.values() for need in one.needs}
    known = plan.spec.agents
    frozen = [name for name in known if known[plan.owner[name]].update == "frozen" and name != student]
    found = list(teachers) or frozen
    hidden = "student" in needs  # a loss without labels is of the teachers' mean
    if not needs & {"teachers", "several"} and not (hidden and found):
        found = []
    if "several" in needs and len(found) < 2:
        what = f"{len(found) or 'no'} teacher, and disagreement is between several"
        raise MeshError(what, where="--agents", instead="two or more agents; by default those that are frozen")
    if "teachers" in needs and not found:
        raise MeshError("no teacher", where="--agents", instead="an agent; by default those that are frozen")
    if "student" in needs and student is None:
        raise MeshError("a criterion asks a student", where="--student", instead="--student AGENT")
    return found, student if "student" in needs else None


def _scored(name: str, one: Any, answers: Answers, agents: list[str], student: str | None, seed: int) -> Tensor:
    """A criterion's score of each sample, ``[N]`` float64. MeshError for one that is no number."""
    if one.whole:
        scores = one.samples(answers.values, seed).double()
    else:
        teachers = [answers.logits[agent] for agent in agents]
        asked = answers.logits[student] if student else None
        like = asked if asked is not None else teachers[0]
        if any(other.shape != like.shape for other in teachers):
            what = "agents answer for unlike rows or columns"
            raise MeshError(what, where=f"--by {name}", instead="agents with one tokenizer")
        step = max(1, VALUES // (like.shape[1] * (len(teachers) + 1)))
        parts = []
        for start in range(0, len(like), step):
            at = slice(start, start + step)
            here = torch.stack([one[at] for one in teachers]) if teachers else like.new_empty(0, 0, like.shape[1])
            labels = None if answers.labels is None else answers.labels[at]
            if not teachers and labels is None:
                raise MeshError("there are neither labels nor teachers", where=f"--by {name}", instead="--agents")
            parts.append(one.rows(Asked(here, None if asked is None else asked[at], labels)).double())
        scores = torch.cat(parts)
        if answers.starts is not None:
            scores = torch.segment_reduce(scores, "mean", offsets=answers.starts, initial=0.0)
    if not bool(scores.isfinite().all()):
        odd = int((~scores.isfinite()).nonzero()[0])
        what = f"the score of sample {int(answers.ids[odd])} is {scores[odd].item()}"
        raise MeshError(what, where=f"--by {name}", instead="agents whose answers are finite")
    return scores


def _record(plan: Plan, answers: Answers, chosen: Chosen, stream: str, how: dict[str, Any]) -> dict[str, Any]:
    """What the file says: of what data, how, by whom, and the samples, best first."""
    data = plan.spec.data
    assert data is not None
    held = {name: len(one.rows) for name, one in answers.found.streams.items() if name != LABELS}
    return {
        "kdmesh_selection": FORMAT,
        "of": stream,
        "data": {**answers.found.table.fingerprint, "samples": len(answers.found.table), "seed": data.seed},
        "streams": held,
        "how": {**how, "weights": answers.weights},
        "samples": [
            {"id": one, **{name: values[at].item() for name, values in chosen.scores.items()}}
            for at, one in enumerate(chosen.ids.tolist())
        ],
    }
