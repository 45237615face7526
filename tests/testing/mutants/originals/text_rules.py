"""Right rules over texts, of which wrong ones are made."""

from __future__ import annotations

from kdmesh.filters import Choice, TextRule


class Shortest(TextRule):
    """The shortest text that is not empty."""

    def __init__(self):
        self.clean = str.strip

    def choose(self, texts, read):
        long = [len(self.clean(one.text.text)) for one in texts]
        least = min(filter(None, long), default=0)
        told = {"lengths": long}
        return Choice(long.index(least), told=told) if least else Choice(None, "all empty", told)


class Highest(TextRule):
    """The text with the highest score."""

    def __init__(self, metric):
        self.metric = metric

    def choose(self, texts, read):
        scores = [-1.0 if one.score is None else one.score for one in texts]
        return Choice(scores.index(max(scores)), told={"scores": scores})
