"""Rules over texts that are wrong in ways of their own."""

from __future__ import annotations

from ..mutant import edit

SHORTEST, HIGHEST = "text_rules.Shortest", "text_rules.Highest"
MUTANTS = [
    edit(SHORTEST, "gives a place alone", "return Choice(long.index(least), told=told) if least else",
         "return long.index(least) if least else"),
    edit(SHORTEST, "counts from 1", "Choice(long.index(least), told", "Choice(long.index(least) + 1, told"),
    edit(SHORTEST, "does not say why", '"all empty"', '""'),
    edit(SHORTEST, "keeps what is no plain data", '{"lengths": long}', '{"lengths": texts}'),
    edit(SHORTEST, "gives a bool", "Choice(long.index(least), told", "Choice(bool(long.index(least)), told"),
    edit(SHORTEST, "abstains always", "if least else", "if least < 0 else"),
    edit(SHORTEST, "asks for more each time", "least = min(",
         "self.seen = getattr(self, 'seen', 0) + 1\n        long[self.seen % len(long)] += 1\n        least = min("),
    edit(SHORTEST, "draws from numpy", "least = min(",
         "import numpy\n\n        numpy.random.rand()\n        least = min("),
    edit(SHORTEST, "draws from torch", "least = min(", "import torch\n\n        torch.rand(())\n        least = min("),
    edit(SHORTEST, "takes texts out", "least = min(", "texts.pop()\n        least = min("),
    edit(SHORTEST, "reads a score that it does not ask for", "len(self.clean(one.text.text))",
         "int(len(self.clean(one.text.text)) + 5 * (one.score or 0))"),
    edit(SHORTEST, "goes by the number of the sample", "least = min(",
         "long[0] += 9 * (texts[0].text.sample < 6)\n        least = min("),
    edit(SHORTEST, "rejects texts, of which its offer says nothing", "told=told) if least",
         "told=told, rejected=None if len(long) < 2 else (long.index(least) + 1) % len(long)) if least"),
    edit(SHORTEST, "rejects what it chooses", "told=told) if least", "told=told, rejected=long.index(least)) if least"),
    edit(SHORTEST, "holds what cannot be sent", "self.clean = str.strip", "self.clean = lambda text: text.strip()"),
    edit(HIGHEST, "remembers for all of its kind", "return Choice(",
         "type(self).best = max(getattr(type(self), 'best', 0), *scores)\n"
         "        scores[-1] += getattr(type(self), 'best', 0) * 2\n        return Choice("),
]  # fmt: skip
