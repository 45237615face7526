"""Slips in YAML: each is told with line, column, what was found and what to write; what YAML 1.2 allows is read."""

from __future__ import annotations

import re

import pytest

from kdmesh.errors import MeshError
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import load

WRONG = {
    "a tab for an indent": ("a:\n\tb: 1\n", (2, 1), "a tab", "spaces"),
    "a tab behind spaces": ("a:\n  b:\n  \tc: 1\n", (3, 3), "a tab", "spaces"),
    "a tab in brackets": ("a: [1,\n\t2]\n", (2, 1), "a tab", "spaces"),
    "an open single quote": ("name: 'abc\ndata: x\n", (1, 7), "never closed", "the same quote"),
    "an open double quote": ('name: "abc\ndata: x\n', (1, 7), "never closed", "the same quote"),
    "an open bracket": ("a: [b, c\nd: e\n", (1, 4), "`[` is opened here", "`]`"),
    "an open brace": ("a: {b: c\nd: e\n", (1, 4), "`{` is opened here", "`}`"),
    "an open brace at the end": ("a: {b: {c: d}\n", (1, 4), "before the file ends", "`}`"),
    "a bracket too many": ("a: [1]]\n", (1, 7), "`]`, which nothing opened", "leave it out"),
    "a brace too many": ("a: {b: 1}}\n", (1, 10), "`}`, which nothing opened", "leave it out"),
    "two commas": ("a: {b: 1,, c: 2}\n", (1, 10), "`,`, where a value is due", "leave it out"),
    "a name twice": ("a: 1\na: 2\n", (2, 1), "'a' stands twice, first in line 1", "one of both"),
    "a name twice in braces": ("x: {a: 1, a: 2}\n", (1, 11), "'a' stands twice, first in line 1", "one of both"),
    "too few spaces": ("a:\n    b: 1\n  c: 2\n", (3, 3), "2 spaces", "0 spaces"),
    "too many spaces": ("a: 1\n  b: 2\n", (2, 3), "inside `a: 1` of line 1", "0 spaces"),
    "too many spaces in a list": ("a:\n  - b: 1\n   c: 2\n", (3, 4), "3 spaces", "2 spaces"),
    "a name amid a list": ("a:\n  - b\n  c: 1\n", (3, 3), "no entry of the list", "`- ` before it"),
    "no space after a colon": ("seed:3\ndata: x\n", (1, 5), "without a space", "`seed: 3`"),
    "no colon": ("a\nb: 1\n", (1, 1), "`a` of line 1 has no colon", "name: value"),
    "no colon in the middle": ("a: 1\nb\nc: 2\n", (2, 1), "without a colon", "name: value"),
    "two colons": ("a: b: c\n", (1, 5), "a second `: ` in one line", "quotes"),
    "a colon in text": ("description: a mesh: of two\n", (1, 20), "a second `: ` in one line", "quotes"),
    "an unknown alias": ("a: *x\n", (1, 4), "the alias `*x`", "`&x` before"),
    "an anchor twice": ("a: &x 1\nb: &x 2\n", (2, 4), "`&x` stands twice", "another name"),
    "a merge of a number": ("a: {<<: 3}\n", (1, 9), "`<<` takes a mapping", "`<<: *NAME`"),
    "two documents": ("a: 1\n---\nb: 2\n", (2, 1), "a second document", "one mesh in a file"),
    "more after the end": ("a: 1\n...\nb: 2\n", (3, 1), "after the end", "one mapping"),
    "another language": ("[a]\nb = 1\n", (2, 1), "after the end", "name: value"),
    "Python's objects": ("a: !!python/object/apply:os.system [x]\n", (1, 4), "`!!python/", "the value alone"),
    "a tag": ("a: !foo 1\n", (1, 4), "the tag `!foo`", "the value alone"),
    "a tag that lies of a whole number": ("a: !!int x\n", (1, 4), "'x' is not a whole number", "no tag"),
    "a tag that lies of a number": ("a: !!float x\n", (1, 4), "'x' is not a number", "no tag"),
    "a tag that lies of truth": ("a: !!bool x\n", (1, 4), "'x' is not true or false", "no tag"),
    "another version": ("%YAML 9.1\n---\na: 1\n", (1, 1), "another YAML", "`%YAML`"),
    "a percent sign": ("a: %b\n", (1, 4), "begins with %", "'%b'"),
    "an at sign": ("a: @b\n", (1, 4), "begins with @", "'@b'"),
    "a star": ("a: **b\n", (1, 5), "`*` and `&` begin", "quotes"),
    "a path of Windows": ('a: "C:\\data"\n', (1, 8), "`\\d` is no escape", "single quotes"),
    "a list behind a name": ("a: - b\n", (1, 4), "right behind a name", "[a, b]"),
    "braces of a template": ("a: 1\n{{ b }}: 2\n", (2, 1), "in place of a name", "quotes"),
    "no name": (": 1\n", (1, 1), "without a name", "name: value"),
    "text behind a bar": ("a: |x\n b\n", (1, 5), "right behind `|`", "lines of its own"),
    "a control character": ("a: 1\nb: \x01\n", (2, 4), "U+0001", "double quotes"),
    "a zero byte": ("a: \0\n", (1, 4), "U+0000", "leave it out"),
    "Markdown": ("```yaml\na: 1\n```\n", (1, 1), "a fence of Markdown", "between the fences"),
    "a conflict": ("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> x\n", (2, 1), "merge conflict", "one of the two"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_slip_is_told_with_its_place_and_what_to_write(name: str) -> None:
    text, (line, column), what, instead = WRONG[name]
    with pytest.raises(MeshError) as error:
        load(text, file="mesh.yaml")
    assert error.value.where == f"line {line}, column {column}"
    assert what in error.value.what and instead in error.value.instead
    assert "<" not in re.sub(r"`<<`|`<<:", "", str(error.value))  # none of the parser's own words


RIGHT = {
    "a: 1\r\nb:\r\n  - 2\r\n": {"a": 1, "b": [2]},
    "a: 1\rb: 2\r": {"a": 1, "b": 2},
    "x: &x {a: 1}\ny: {<<: *x, b: 2}\n": {"x": {"a": 1}, "y": {"a": 1, "b": 2}},
    "a: yes\nb: on\nc: 010\nd: 1e3\n": {"a": "yes", "b": "on", "c": 10, "d": 1000.0},
    "%YAML 1.1\n---\na: 1\n": {"a": 1},
    '{"a": 1,}\n': {"a": 1},
}


@pytest.mark.parametrize("text", RIGHT)
def test_what_yaml_allows_is_read(text: str) -> None:
    assert load(text) == RIGHT[text]


@pytest.mark.parametrize(
    ("data", "where", "instead"),
    [
        ({"train": {"epochs:3": None}}, "train.epochs:3", "`epochs: 3`, with a space"),
        ({"seed\uff1a3": None}, "seed\uff1a3", "`seed: 3`, with a space"),
        ({"\u201cseed\u201d": 3}, "\u201cseed\u201d", "`seed`: YAML takes U+201C, U+201D for part of the name"),
        ({"\ufeffseed": 3}, "\ufeffseed", "`seed`: YAML takes U+FEFF"),
        ({"\u00a0\u00a0epochs": 3}, "\u00a0\u00a0epochs", "`epochs`: YAML takes U+00A0 for part of the name, and"),
    ],
)
def test_a_name_with_signs_that_yaml_takes_for_part_of_it_is_told(
    data: dict[str, object], where: str, instead: str
) -> None:
    with pytest.raises(MeshError) as error:
        parse({"agents": {"a": {"model": "mlp"}}, **data})
    assert error.value.where == where and error.value.instead.startswith(instead)


def test_a_single_line_without_a_space_after_its_colon_is_told() -> None:
    with pytest.raises(MeshError, match="a space after the colon: `seed: 3`"):
        parse(load("seed:3\n"))
