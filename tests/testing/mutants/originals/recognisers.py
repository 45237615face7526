"""Right recognisers, of which wrong ones are made."""

from __future__ import annotations

import re

from kdmesh.recognisers import Entity, Recogniser


class Plates(Recogniser):
    """Licence plates of a canton."""

    def __init__(self, canton="BE"):
        self.plate = re.compile(rf"(?<!\w){canton} \d{{1,6}}(?!\w)")

    def find(self, texts):
        return [[Entity(*one.span(), "PLATE") for one in self.plate.finditer(text)] for text in texts]


class Badges(Recogniser):
    """Numbers of a badge whose last digit is the sum of the others, after the word."""

    def __init__(self):
        self.badge = re.compile(r"badge (\d{5})(?!\d)")

    def find(self, texts):
        found = []
        for text in texts:
            own = []
            for one in self.badge.finditer(text):
                digits = [int(digit) for digit in one[1]]
                if sum(digits[:-1]) % 10 == digits[-1]:
                    own.append(Entity(one.start(1), one.end(1), "BADGE"))
            found.append(own)
        return found
