"""Check that the data and their labels are those of the mesh's task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.plugins import registry
from kdmesh.spec import DEFAULT_TASK

if TYPE_CHECKING:
    from kdmesh.graph.plan import Plan
    from kdmesh.streams.table import Table

KIND = {True: "texts", False: "numbers"}
CLASSES = ("classes",)
NUMBERS = ("values", "relevance")  # kinds of labels [N, T] float32: the task itself looks further


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
        given = NUMBERS if table.y.is_floating_point() else CLASSES
        if task.labels not in given:
            fit = [offer.name for offer in registry().offers("tasks") if offer.labels in given and own in offer.data]
            raise MeshError(
                f"`task: {task.name}` learns {task.labels}, and the labels of these data are {given[0]}",
                where="task",
                instead=f"task: {' or '.join(fit)}, or another label column",
            )
    for name, agent in plan.spec.agents.items():
        if agent.labels is not None and task.labels != "classes":
            raise MeshError(
                f"task {task.name} has no classes", where=f"agents.{name}.labels", instead="leave `labels` out"
            )
    try:
        plan.answers.refuse(table)
    except Exception as error:
        registry().blame("tasks", task.name, error, "as it looked at the labels", "task")
