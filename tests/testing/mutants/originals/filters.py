"""Right filters, of which wrong ones are made."""

from __future__ import annotations

from kdmesh.filters import Filter


class Bounded(Filter):
    """Texts of so many words at least."""

    def __init__(self, least=5):
        self.least = least

    def keep(self, texts):
        return [len(one.text.split()) >= self.least for one in texts]


class First(Filter):
    """The first of equal texts of a prompt."""

    def __init__(self):
        self.words = str.casefold

    def keep(self, texts):
        seen = set()
        found = []
        for one in texts:
            key = (one.sample, self.words(one.text))
            found.append(key not in seen)
            seen.add(key)
        return found


class Likely(Filter):
    """Texts of a small loss."""

    def __init__(self, most=2.0):
        self.most = most

    def keep(self, texts):
        return [one.loss is not None and one.loss <= self.most for one in texts]
