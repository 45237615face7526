"""Licences by the names that people write, as SPDX expressions. What is not known is said to be unknown, never guessed.

SPDX specification 3.0.1, annex B: identifiers of its list, `LicenseRef-` for any other, joined by AND, OR and WITH.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from license_expression import Licensing

REF = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")

SAID = {
    "apache": "Apache-2.0",
    "cc by": "CC-BY-4.0",
    "cc by nc": "CC-BY-NC-4.0",
    "cc by nc sa": "CC-BY-NC-SA-4.0",
    "cc by sa": "CC-BY-SA-4.0",
    "creative commons attribution": "CC-BY-4.0",
    "creative commons attribution noncommercial": "CC-BY-NC-4.0",
    "creative commons attribution noncommercial sharealike": "CC-BY-NC-SA-4.0",
    "creative commons attribution sharealike": "CC-BY-SA-4.0",
}
"""Names in small letters that need a version to say which licence they mean; it stands in what they mean."""

NAMES = {
    "mit": "MIT",
    "mit mit": "MIT",
    "expat": "MIT",
    "cc0": "CC0-1.0",
    "2 clause bsd": "BSD-2-Clause",
    "3 clause bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "simplified bsd": "BSD-2-Clause",
    "llama2": "LicenseRef-llama2",
    "llama 2 community": "LicenseRef-llama2",
    "llama3": "LicenseRef-llama3",
    "meta llama 3 community": "LicenseRef-llama3",
    "llama3.1": "LicenseRef-llama3.1",
    "llama 3.1 community": "LicenseRef-llama3.1",
    "llama3.2": "LicenseRef-llama3.2",
    "llama 3.2 community": "LicenseRef-llama3.2",
    "llama3.3": "LicenseRef-llama3.3",
    "llama 3.3 community": "LicenseRef-llama3.3",
    "llama4": "LicenseRef-llama4",
    "llama 4 community": "LicenseRef-llama4",
    "gemma": "LicenseRef-gemma",
    "gemma terms of use": "LicenseRef-gemma",
    "deepseek license agreement": "LicenseRef-deepseek-1.0",
    "tongyi qianwen research": "LicenseRef-tongyi-qianwen-research",
    "openrail++": "LicenseRef-openrailpp-m",
    "creativeml open rail++-m": "LicenseRef-openrailpp-m",
    "openai services agreement": "LicenseRef-openai-services-agreement",
    "anthropic commercial terms of service": "LicenseRef-anthropic-commercial-terms",
    "deepseek terms of use": "LicenseRef-deepseek-terms-of-use",
}
"""Names that mean one licence: as the hub writes it, or as it calls itself."""

SEVERAL = {
    "agpl": "AGPL-3.0-only or AGPL-3.0-or-later",
    "apache": "Apache-2.0, perhaps Apache-1.1",
    "bsd": "BSD-2-Clause or BSD-3-Clause, say",
    "cc": "CC-BY-4.0 or CC-BY-NC-4.0, say",
    "cc by": "CC-BY-4.0, perhaps CC-BY-3.0",
    "cc by nc": "CC-BY-NC-4.0, perhaps CC-BY-NC-3.0",
    "cc by nc sa": "CC-BY-NC-SA-4.0, perhaps CC-BY-NC-SA-3.0",
    "cc by sa": "CC-BY-SA-4.0, perhaps CC-BY-SA-3.0",
    "creative commons": "CC-BY-4.0 or CC-BY-NC-4.0, say",
    "deepseek": "MIT or LicenseRef-deepseek-1.0: it differs by model",
    "gpl": "GPL-2.0-only or GPL-3.0-or-later, say",
    "lgpl": "LGPL-2.1-only or LGPL-3.0-or-later, say",
    "llama": "llama2, llama3.1 or llama4, say",
    "openrail": "openrail++, say, or the name of its own that its text has",
    "qwen": "the licence that stands beside these weights: there are several",
    "rail": "openrail++, say, or the name of its own that its text has",
}
"""Names of families: which licence is meant cannot be told."""

NONE = {"", "n/a", "none", "not stated", "other", "unknown", "custom", "proprietary", "see license", "see license file"}
"""What stands where a licence has no name."""

_NOISE = re.compile(r"\b(the|licen[cs]ed?|agreement|international|version|v(?=\s?\d))\b|[,()_]|(?<=\w)-(?=[a-z])")


class Named(NamedTuple):
    """``expression``: in SPDX; "" where the licence is unknown, and ``why``."""

    written: str
    expression: str
    why: str = ""

    def __str__(self) -> str:
        return self.expression or f"unknown ({self.why})"


def named(written: str) -> Named:
    """The licence that is meant by what someone wrote."""
    text = " ".join(str(written).split())
    plain = text.casefold()
    if plain in NONE:
        return Named(text, "", f"{text!r} names none" if text else "none is stated")
    if plain.count("(") != plain.count(")"):  # the parser would close it itself
        return Named(text, "", f"{text!r} is no SPDX expression: a bracket is open")
    if expression := _said(plain):
        return Named(text, expression)
    for name in (plain, _plain(plain)):
        if name in SEVERAL:
            return Named(text, "", f"{text!r} may be several: write {SEVERAL[name]}")
    return _parsed(text)


def alternatives(expression: str) -> list[list[str]]:
    """The ways to meet an expression, each the licences that hold together: of ``A OR (B AND C)``, [[A], [B, C]]."""
    return _ways(_licensing().parse(expression))


def _said(plain: str) -> str:
    for name in (plain, _plain(plain)):
        if name in NAMES:
            return NAMES[name]
    stem, _, number = _plain(plain).rpartition(" ")
    meant = SAID.get(stem, "")
    return meant if meant and _number(number) == _number(meant.rsplit("-", 1)[1]) else ""


def _plain(text: str) -> str:
    """A name without the words that are in most of them: `the mit license` is `mit`."""
    return " ".join(_NOISE.sub(" ", text).split())


def _number(text: str) -> str:
    return text.removesuffix(".0")


@cache
def _licensing() -> Licensing:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def _parsed(text: str) -> Named:
    from license_expression import ExpressionError

    try:
        found = _licensing().parse(text)
        strange = _licensing().unknown_license_keys(found)
    except (ExpressionError, ValueError) as error:
        return Named(text, "", f"{text!r} is no SPDX expression: {str(error).splitlines()[0]}")
    if found is None:
        return Named(text, "", f"{text!r} is no SPDX expression")
    strange = [one for one in strange if not REF.fullmatch(one)]
    if strange:
        return Named(text, "", f"{', '.join(map(repr, strange))} is not on SPDX's list, nor LicenseRef-NAME")
    return Named(text, found.render())


def _ways(node: Any) -> list[list[str]]:
    operator = type(node).__name__
    if operator == "OR":
        return [way for one in node.args for way in _ways(one)]
    if operator == "AND":
        ways: list[list[str]] = [[]]
        for one in node.args:
            ways = [[*before, *way] for before in ways for way in _ways(one)]
        return ways
    return [[node.render()]]
