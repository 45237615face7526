"""What a text answers: the part that counts, and the number that it is."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")
PLACES = 24  # a number with more is written with its exponent


def pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression; ValueError, in words, for one that is none."""
    try:
        return re.compile(text, re.DOTALL)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None


def extracted(found: re.Pattern[str] | None, text: str) -> str | None:
    """The answer in a text, stripped: the first group of the last match, or all of it where there is no group.

    Without a pattern the whole text. None where the pattern does not match, or the answer is empty.
    """
    if found is None:
        return text.strip() or None
    last = None
    for last in found.finditer(text):  # noqa: B007  the last is what counts
        pass
    if last is None:
        return None
    return ((last.group(1) if found.groups else last.group()) or "").strip() or None


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
