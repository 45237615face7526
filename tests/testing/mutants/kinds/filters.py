"""Filters that are wrong in ways of their own."""

from __future__ import annotations

from ..mutant import edit

BOUNDED, FIRST, LIKELY = "filters.Bounded", "filters.First", "filters.Likely"
MUTANTS = [
    edit(BOUNDED, "gives numbers", " >= self.least for", " // self.least for"),
    edit(BOUNDED, "leaves out a text", "for one in texts]", "for one in texts][1:]"),
    edit(BOUNDED, "gives a generator", "return [len(one.text.split()) >= self.least for one in texts]",
         "return (len(one.text.split()) >= self.least for one in texts)"),
    edit(BOUNDED, "asks more each time", "return [", "self.least += 1\n        return ["),
    edit(BOUNDED, "keeps every text", ">= self.least for", ">= 0 for"),
    edit(BOUNDED, "draws from numpy", "return [", "import numpy\n\n        numpy.random.rand()\n        return ["),
    edit(BOUNDED, "draws from torch", "return [", "import torch\n\n        torch.rand(())\n        return ["),
    edit(BOUNDED, "takes texts out", "return [", "found = [len(one.text.split()) >= self.least for one in texts]\n"
         "        texts.pop()\n        return found\n        return ["),
    edit(BOUNDED, "reads a loss that it does not ask for", ">= self.least for", ">= self.least + (one.loss or 0) for"),
    edit(FIRST, "remembers what it saw", "seen = set()", "seen = self.__dict__.setdefault('seen', set())"),
    edit(FIRST, "remembers for all of its kind", "seen = set()", "seen = vars(type(self)).get('known') or set()\n"
         "        type(self).known = seen"),
    edit(FIRST, "goes by the number of the sample", "found.append(key not in seen)",
         "found.append(key not in seen and one.sample < 6)"),
    edit(FIRST, "holds what cannot be sent", "self.words = str.casefold", "self.words = lambda text: text.casefold()"),
    edit(FIRST, "asks in the order of a set", "for one in texts:",
         "for one in sorted(texts, key=lambda one: hash(one.text)):"),
    edit(LIKELY, "does not say that it needs losses", needs=()),
]  # fmt: skip
