"""Right tasks, of which wrong ones are made."""

from __future__ import annotations

from kdmesh.tasks import Task, most_frequent


class Classes(Task):
    """One class of each sample; chance is the most frequent one."""

    def __init__(self, least=1):
        self.least = least

    def outputs(self, table):
        return table.classes

    def decide(self, scores):
        return scores.argmax(1)

    def chance(self, labels):
        return most_frequent(labels, "the most frequent class")
