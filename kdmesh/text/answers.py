"""What a text answers: the part that counts, and the number that it is."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")
PLACES = 24  # a number with more is written with its exponent
ENDS = ("a", "0", ".", " ", "\n")  # texts by which is told what a pattern finds in all


def pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression; ValueError, in words, for one that is none."""
    try:
        return re.compile(text, re.DOTALL)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None


def finds(text: str | None) -> str | None:
    """A pattern of answers, as it stands; ValueError for one that is none, or by which no text ever has an answer."""
    if text is None:
        return None
    found = pattern(text)
    if all(found.match(one, len(one)) for one in ENDS):
        raise ValueError(
            f"{text!r} also finds the nothing at the end of a text, and what is found last counts: write one that "
            "needs a character, as [0-9]+ or (.+)"
        )
    return text


def found(text: str | None) -> str | None:
    """A pattern that is looked for, as it stands; ValueError for one that is none, or that is found in every text."""
    if text is not None and all(pattern(text).search(one) for one in ("", *ENDS)):
        raise ValueError(f"{text!r} is found in every text: write one that needs a character")
    return text


def extracted(found: re.Pattern[str] | None, text: str) -> str | None:
    """The answer in a text, stripped: the first group that took part in the last match, or all of it without groups.

    Without a pattern the whole text. None where the pattern does not match, or the answer is empty.
    """
    if found is None:
        return text.strip() or None
    last = None
    for last in found.finditer(text):  # noqa: B007  the last is what counts
        pass
    if last is None:
        return None
    return next((one for one in (last.groups() or [last.group()]) if one is not None), "").strip() or None


def number(text: str) -> Decimal | None:
    """The last number that a text names, exactly: `1,234.50` is 1234.5; None where it names none."""
    for match in reversed([one.group() for one in NUMBER.finditer(text)]):
        try:
            return Decimal(match.replace(",", ""))
        except InvalidOperation:
            continue  # an empty match, or a sign alone
    return None


def plain(value: Decimal) -> str:
    """A number as it is counted: equal ones are the same text, `1000` for 1,000.0 and 1e3."""
    if value == 0:
        return "0"
    return f"{value.normalize():f}" if abs(value.adjusted()) < PLACES else str(value.normalize())
