"""What the YAML parser complains of, in plain words: where it is, what was found, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import yaml

Told = tuple[str, str]
"""What was found, and what to write instead."""

QUOTES = "quotes around text that begins with it"
LONG = 30  # characters of a piece of the file that is quoted


class Fault(NamedTuple):
    """An error of the parser: its words, where it is in the text, and where what it stands in begins."""

    problem: str
    context: str
    text: str
    line: int  # from 0
    column: int
    begun: tuple[int, int] | None

    def here(self, line: int) -> str:
        """A line of the text; nothing beyond its end."""
        lines = self.text.splitlines()
        return lines[line] if 0 <= line < len(lines) else ""

    def before(self) -> tuple[int, str]:
        """The last line above that is neither empty nor a comment, with its number."""
        for line in range(self.line - 1, -1, -1):
            if self.here(line).split("#")[0].strip():
                return line, self.here(line)
        return 0, ""


def explained(error: yaml.MarkedYAMLError, text: str) -> tuple[str, str, str]:
    """The place of an error, what was found there, and what to write instead."""
    mark, begun = error.problem_mark or error.context_mark, error.context_mark
    at = (mark.line, mark.column) if mark else (0, 0)
    fault = Fault(error.problem or "", error.context or "", text, *at, (begun.line, begun.column) if begun else None)
    conflict = re.search(r"^(<{7}|={7}|>{7})( |$)", text, re.MULTILINE)
    if conflict:
        return f"line {text.count(chr(10), 0, conflict.start()) + 1}, column 1", *CONFLICT
    for pattern, tell in RULES:
        if found := re.search(pattern, fault.problem):
            told = tell(fault, found)
            line, column = told[2] if len(told) > 2 else at  # a rule may know a better place
            return f"line {line + 1}, column {column + 1}", told[0], told[1]
    what = ", ".join(part for part in (error.problem, error.context) if part)
    return f"line {at[0] + 1}, column {at[1] + 1}", what, ""


def unreadable(error: yaml.reader.ReaderError, text: str) -> tuple[str, str, str]:
    """The same of a character that no YAML may hold."""
    line, column = text.count("\n", 0, error.position), error.position - text.rfind("\n", 0, error.position) - 1
    code = error.character if isinstance(error.character, int) else ord(error.character)
    instead = f'"\\x{code:02X}" in double quotes, or leave it out' if code < 256 else "leave it out"
    return f"line {line + 1}, column {column + 1}", f"the character U+{code:04X} may not stand in YAML", instead


def _start(fault: Fault, found: re.Match[str]) -> Told:
    sign = found[1]
    if sign == "\\t":
        return "a tab, where YAML takes spaces only", "spaces: two more for each step in"
    if fault.here(fault.line).lstrip().startswith("```"):
        return "a fence of Markdown", "the YAML between the fences alone"
    rest = fault.here(fault.line)[fault.column :].strip()[:LONG]
    return f"nothing in YAML begins with {sign}", f"'{rest}'" if "'" not in rest else QUOTES


def _quote(fault: Fault, found: re.Match[str]) -> tuple[str, str, tuple[int, int]]:
    where = fault.begun or (fault.line, fault.column)
    return "a quote is opened here and never closed", "the same quote at the end of the text", where


def _bracket(fault: Fault, found: re.Match[str]) -> tuple[str, str, tuple[int, int]]:
    close, got = found[1], found[2]
    opened = {"]": "[", "}": "{"}[close]
    where = fault.begun or (fault.line, fault.column)
    if got == "<stream end>" or fault.line > where[0]:
        told = "the file ends" if got == "<stream end>" else f"{_sign(got)} stands in line {fault.line + 1}"
        return f"`{opened}` is opened here and not closed before {told}", f"`{close}` where it ends", where
    here = (fault.line, fault.column)
    return f"{_sign(got)}, where `,` or `{close}` is due", f"`,` between entries, `{close}` after the last one", here


def _block(fault: Fault, found: re.Match[str]) -> Told:
    got = found[1]
    if got in ("]", "}"):
        return f"`{got}`, which nothing opened", f"leave it out, or `{'[' if got == ']' else '{'}` where it begins"
    if got == ":":
        return "`:` without a name before it", "name: value"
    line, column = fault.begun or (0, 0)
    kind = "list" if "sequence" in fault.context or "collection" in fault.context else "names"
    if fault.column == column and kind == "list":
        return f"this is no entry of the list that begins in line {line + 1}", "`- ` before it, or fewer spaces"
    return (
        f"{fault.column} spaces stand before this, and {column} before the {kind} of line {line + 1}",
        f"{column} spaces, to go on there; more than the line above has, to be inside it",
    )


def _colon(fault: Fault, found: re.Match[str]) -> tuple[str, str, tuple[int, int]]:
    here, (number, above) = fault.here(fault.line), fault.before()
    place = (fault.line, fault.column)
    if re.search(r":\s", here[: fault.column]):
        instead = "quotes around text that has `: ` in it; a mapping in a line of its own, or in {braces}"
        return "a second `: ` in one line", instead, place
    tight = re.match(r"\s*([\w.-]+):(\S.*)", above)
    if tight:
        there = (number, above.index(":"))
        return f"`{tight[1]}:` without a space after its colon", f"`{tight[1]}: {tight[2].strip()[:LONG]}`", there
    indent = len(above) - len(above.lstrip())
    if ":" in above:
        return (
            f"this is inside `{above.strip()[:LONG]}` of line {number + 1}, which has a value already",
            f"{indent} spaces before it, as there; or nothing but it after that colon",
            (fault.line, len(here) - len(here.lstrip())),
        )
    return f"`{above.strip()[:LONG]}` of line {number + 1} has no colon", "name: value", (number, indent)


def _tag(fault: Fault, found: re.Match[str]) -> Told:
    tag = found[1].replace("tag:yaml.org,2002:", "!!")[:LONG]
    code = ", and nothing of a file is ever run" if "python" in tag else ""
    return f"the tag `{tag}`: none is read{code}", "the value alone: text, number, true or false, [list], {name: value}"


def _sign(got: str) -> str:
    return {"<scalar>": "a value", "<stream end>": "the end of the file"}.get(got, f"`{got}`")


def _plain(what: str, instead: str) -> Callable[[Fault, re.Match[str]], Told]:
    """A rule of fixed words, with what the pattern found in place of ``{0}``."""
    return lambda fault, found: (what.format(*found.groups()), instead.format(*found.groups()))


CONFLICT = "a mark of a merge conflict", "one of the two versions, without the marks"
RULES: list[tuple[str, Callable[[Fault, re.Match[str]], Told | tuple[str, str, tuple[int, int]]]]] = [
    (r"found character '(.*)' that cannot start", _start),
    (r"unexpected (?:end of stream|document separator)", _quote),
    (r"expected ',' or '([\]}])', but got '(.*)'", _bracket),
    (r"expected <block end>, but found '(.*)'", _block),
    (r"mapping values are not allowed", _colon),
    (r"could not determine a constructor for the tag '(.*)'", _tag),
    (
        r"could not find expected ':'",
        lambda fault, found: ("a line without a colon", "name: value", fault.begun or (fault.line, fault.column)),
    ),
    (
        r"sequence entries are not allowed",
        _plain("`- ` right behind a name", "[a, b], or each `- ` entry in a line of its own below"),
    ),
    (
        r"undefined alias '(.*)'",
        _plain("the alias `*{0}`, and no `&{0}` stands before it", "`&{0}` before the value that is meant"),
    ),
    (
        r"for merging, but found (.*)",
        _plain("`<<` takes a mapping, and this is a {0}", "`<<: *NAME`, where `&NAME` marks a mapping"),
    ),
    (r"found another document", _plain("a second document begins here", "one mesh in a file, without `---`")),
    (
        r"expected '<document start>'",
        _plain("this comes after the end of the mesh", "one mapping in the whole file: `name: value`, line by line"),
    ),
    (r"incompatible YAML document", _plain("another YAML than 1.2", "the file without its line `%YAML`")),
    (
        r"unknown escape character '(.*)'",
        _plain("`\\{0}` is no escape of double quotes", "single quotes, or two backslashes for one"),
    ),
    (
        r"expected alphabetic or numeric character",
        _plain("`*` and `&` begin the name of an anchor, and no name follows", QUOTES),
    ),
    (r"unhashable key", _plain("a list or a mapping in place of a name", "text as a name; quotes for {{...}}")),
    (r"expected the node content, but found '(.*)'", _plain("`{0}`, where a value is due", "a value, or leave it out")),
    (
        r"chomping or indentation indicators",
        _plain("text right behind `|` or `>`", "the text in lines of its own below, further in"),
    ),
    (
        r"found duplicate anchor '(.*)'|second occurrence",
        lambda fault, found: (
            f"the anchor `&{fault.context.partition(chr(39))[2].partition(chr(39))[0]}` stands twice",
            "another name for one of them",
        ),
    ),
    (r"stands twice, first in line", lambda fault, found: (fault.problem, "one of both, or another name")),
    (r"whole number of .* digits", lambda fault, found: (fault.problem, "a number below 2^63")),
    (
        r"is not (a number|a whole number|true or false)$",
        lambda fault, found: (fault.problem, "a value of this kind, or no tag"),
    ),
]
"""By the parser's words: what to say. The first that fits counts; a third part is a better place."""
