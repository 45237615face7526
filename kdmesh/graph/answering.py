"""The task of a mesh as everyone asks it: what it gives is checked, and named with whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from kdmesh.contracts.task import Chance, Task, refuse_classes, refuse_decided
from kdmesh.errors import FAULTS
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdmesh.offers import TaskOffer
    from kdmesh.streams.table import Table


T = TypeVar("T")


class Answering(Task):
    """The task of an offer, made with its settings; RunFailed for what is wrong of what that gives."""

    def __init__(self, offer: TaskOffer, config: dict[str, Any]) -> None:
        self.offer = offer
        self.task: Task = self._asked(lambda: offer.make(config), "to be made")

    def refuse(self, table: Table) -> None:
        """Raise MeshError for a data set whose labels are not the task's."""
        self._asked(lambda: self.task.refuse(table), "as it looked at the labels")

    def outputs(self, table: Table) -> int:
        """How many outputs a model has per row, 1 or more."""

        def outputs() -> int:
            count = self.task.outputs(table)
            if self.offer.outputs != "labels":  # as many as the vocabulary has
                return count
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ValueError(f"outputs() gave {count!r}, not how many a row of answers has: an int of 1 or more")
            return count

        return self._asked(outputs, "to say how many outputs a model has")

    def decide(self, scores: Any) -> Any:
        """The answer that each row stands for."""

        def decide() -> Any:
            found = self.task.decide(scores)
            if found is not None or self.offer.decides:
                refuse_decided(found, scores)
                if found is not None and self.offer.labels == "classes" and "probs" in self.offer.spaces:
                    refuse_classes(found, scores)
            return found

        return self._asked(decide, "to decide about answers")

    def chance(self, labels: Any) -> Chance | None:
        """What the best constant answer reaches on these labels."""

        def chance() -> Chance | None:
            found = self.task.chance(labels)
            if found is not None and not isinstance(found, Chance):
                raise ValueError(f"chance() gave a {type(found).__name__}, not a kdmesh.tasks.Chance, or None")
            return found

        return self._asked(chance, "to say what chance reaches")

    def _asked(self, ask: Callable[[], T], doing: str) -> T:
        try:
            return ask()
        except FAULTS as error:
            registry().attribute_error("tasks", self.offer.name, error, doing, "task")
