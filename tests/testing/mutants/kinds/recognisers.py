"""Recognisers of personal data that are wrong in ways of their own."""

from __future__ import annotations

from ..mutant import edit

PLATES, BADGES = "recognisers.Plates", "recognisers.Badges"
ALL = 'return [[Entity(*one.span(), "PLATE") for one in self.plate.finditer(text)] for text in texts]'
ONE = 'Entity(one.start(1), one.end(1), "BADGE")'
MUTANTS = [
    edit(PLATES, "ends one character early", "Entity(*one.span(), ", "Entity(one.start(), one.end() - 1, "),
    edit(PLATES, "counts bytes", "Entity(*one.span(), ", "Entity(len(text[: one.start()].encode()), "
         "len(text[: one.end()].encode()), "),
    edit(PLATES, "finds none but at the start of a text", "self.plate.finditer(text)",
         "filter(None, [self.plate.match(text)])"),
    edit(PLATES, "leaves out a text", "for text in texts]", "for text in texts if text]"),
    edit(PLATES, "sorts the texts", "for text in texts]", "for text in sorted(texts)]"),
    edit(PLATES, "gives one list for all", ALL, f"found = {ALL.removeprefix('return ')}\n"
         "        return [one for own in found for one in own]"),
    edit(PLATES, "gives a generator", ALL, f"return iter({ALL.removeprefix('return ')})"),
    edit(PLATES, "gives words in place of places", "Entity(*one.span(), \"PLATE\")", "one[0]"),
    edit(PLATES, "gives another kind than it offers", "\"PLATE\"", "\"CAR\"", finds=("PLATE",)),
    edit(PLATES, "gives no kind", "\"PLATE\"", "\"\""),
    edit(PLATES, "finds each plate once", ALL, f"seen = self.__dict__.setdefault('seen', set())\n        found = "
         f"{ALL.removeprefix('return ')}\n        made = [[one for one in own if text[one.start:one.end] not in seen] "
         "for text, own in zip(texts, found)]\n        seen.update(text[one.start:one.end] for text, own in "
         "zip(texts, found) for one in own)\n        return made"),
    edit(PLATES, "takes texts out", "return [[", "texts[:] = [one.strip() for one in texts]\n        return [["),
    edit(PLATES, "draws", "return [[", "import random\n\n        texts = [one if random.random() < 0.5 else '' for "
         "one in texts]\n        return [["),
    edit(PLATES, "holds what cannot be sent", "self.plate = ", "self.also = lambda text: text\n        self.plate = "),
    edit(BADGES, "finds the word with it", ONE, "Entity(one.start(), one.end(), \"BADGE\")"),
    edit(BADGES, "does not look at the sum", "if sum(digits[:-1]) % 10 == digits[-1]:", "if digits:"),
    edit(BADGES, "finds any five digits", "r\"badge (\\d{5})(?!\\d)\"", "r\"(\\d{5})(?!\\d)\""),
    edit(BADGES, "keeps what it found in other texts", "        found = []\n        for text in texts:\n            own"
         " = []", "        found, own = [], []\n        for text in texts:"),
]  # fmt: skip
