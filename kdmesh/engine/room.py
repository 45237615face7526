"""Whether a mesh fits into this machine's memory, told from shapes before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdmesh.errors import MeshError
from kdmesh.streams.room import memory

if TYPE_CHECKING:
    from kdmesh.engine.check import Checked
    from kdmesh.graph.plan import Plan

ADAM = 4  # values for a weight that trains: itself, its gradient, and two of the optimiser
OUTPUTS = 3  # copies of a batch's outputs at a time: logits, their softmax, its gradient
BYTES = 4


def refuse_large(plan: Plan, found: Checked) -> None:
    """Refuse weights that this machine cannot hold, with the numbers: each alone, since others may be elsewhere."""
    there = memory()
    for owner in dict.fromkeys(plan.owner.values()):
        train, count = plan.train(owner), found.parameters[owner]
        values = ADAM if owner in plan.trainable and train.device == "cpu" else 1
        outputs = found.table.classes * min(train.batch_size, len(found.table)) * OUTPUTS
        size = found.sizes[owner] * values + BYTES * outputs
        if size <= there:
            continue
        made = f"{count:,} parameters" + (", with gradients and an optimiser's state" if values > 1 else "")
        classes = f", and outputs for {found.table.classes:,} classes" if found.table.classes > len(found.table) else ""
        raise MeshError(
            f"{owner} needs about {_gigabytes(size)} of memory: {made}{classes}; this machine has {_gigabytes(there)}",
            where=f"agents.{owner}.model",
            instead="labels 0 .. C - 1 without large gaps, or a smaller `classes`" if classes else "a smaller model",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
