"""Check that the data and their labels are those of the mesh's task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError
from kdmesh.graph.private import MEASURED
from kdmesh.hosts.metrics import UNDEFINED, measure
from kdmesh.plugins import registry
from kdmesh.spec import DEFAULT_TASK
from kdmesh.streams.stream import without

if TYPE_CHECKING:
    from kdmesh.checks.checked import Checked
    from kdmesh.graph.plan import Plan
    from kdmesh.streams.table import Table

SHAPES = {
    "classes": "a column `label`; y [N] of whole numbers",
    "values": "columns `values`; y [N, T] of float",
    "relevance": "columns `query`, `candidates` and `relevance` of texts; y [N, L] of float, and x [N, 1 + L, ...]",
    "indicators": "columns `indicators`; y [N, K] of whole numbers, 0 and 1",
}
"""How a data set has labels of each kind."""
KIND = {True: "texts", False: "numbers"}


def measured(plan: Plan, found: Checked) -> None:
    """Raise MeshError for metrics of a mesh that measures nothing: no labels, or no samples are held out."""
    where = "metrics" if plan.spec.metrics else "primary"
    if not plan.spec.metrics and plan.spec.primary is None:
        return
    if plan.task.source == "table" and found.table.y is None:
        raise MeshError("these data have no labels to measure by", where=where, instead=f"leave `{where}` out")
    if not any(name in found.streams and len(found.streams[name].rows) for name in MEASURED):
        instead = f"data.test: 0.2, or leave `{where}` out"
        raise MeshError("no samples are held out to measure on", where=where, instead=instead)


def judged(plan: Plan, found: Checked) -> None:
    """Raise MeshError where a rule asks for errors on validation and none can be measured; mark what it chose by."""
    for name, node in plan.consensus.items():
        if node.needs_errors:
            if "validation" not in found.streams or found.table.y is None:
                raise MeshError(
                    f"rule {node.rule.name!r} weighs its sources by their errors on validation, and there is no such "
                    "split",
                    where="data.validation",
                    instead="validation: 0.1, or another rule",
                )
            found.mark(f"{name} weighs its sources by their errors on validation, so that its figures there flatter it")


def watched(plan: Plan, found: Checked, key: str, where: str) -> None:
    """Raise MeshError for a metric that early stopping watches and that is not defined on the labels of validation."""
    if found.table.y is None or plan.task.source != "table":
        return
    rows = without(found.streams, found.left_out)["validation"].rows
    some = {ref.key: registry().find("metrics", ref.name).make(ref.settings) for ref in plan.metrics if ref.key == key}
    figures = measure(some, torch.zeros(len(rows), plan.answers.outputs(found.table)), found.table.y[rows])
    if key not in figures:
        reason = figures.get(UNDEFINED, {}).get(key, "of these labels there is no figure")
        raise MeshError(
            f"{key} is not defined on validation: {reason}",
            where=where,
            instead="more validation samples, or one of: " + ", ".join(n for n in plan.task.watched if n != key),
        )


def refuse(plan: Plan, table: Table) -> None:
    """Raise MeshError for samples or labels of a kind that the task does not read."""
    task, own = plan.task, KIND[table.is_text]
    if own not in task.data:
        wanted = " or ".join(task.data)
        raise MeshError(
            f"`task: {task.name}` reads {wanted}, and the data are {own}",
            where="data.dataset",
            instead=f"a data set of {wanted}, or task: {DEFAULT_TASK}",
        )
    if task.source == "table" and table.y is not None:
        given = (table.kind, "relevance") if table.kind == "values" else (table.kind,)  # the task itself looks further
        if task.labels not in given:
            fit = [offer.name for offer in registry().offers("tasks") if offer.labels in given and own in offer.data]
            raise MeshError(
                f"`task: {task.name}` learns {task.labels}, and the labels of these data are {given[0]}",
                where="task",
                instead=f"task: {' or '.join(fit)}, or labels that are {task.labels}: {SHAPES[task.labels]}",
            )
    for name, agent in plan.spec.agents.items():
        if agent.labels is not None and task.labels != "classes":
            raise MeshError(
                f"task {task.name} has no classes", where=f"agents.{name}.labels", instead="leave `labels` out"
            )
    plan.answers.refuse(table)
