"""Names name files: what they may be is refused at once, with where it stands and what to write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdmesh.errors import MeshError
from kdmesh.graph.canvas import Canvas
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec import AgentSpec
from kdmesh.spec.names import FORM, fault, folded, instead, twins
from kdmesh.spec.read import parse

LONG = "a" * 64
BAD = {
    "": "is empty",
    " ": "has ' ' in it",
    ".": "begins with a dot",
    "..": "begins with a dot",
    ".hidden": "begins with a dot",
    "../x": "begins with a dot",
    "a/../../x": "has '/' in it",
    "/abs/path": "has '/' in it",
    "./a": "begins with a dot",
    "a/b": "has '/' in it",
    "a\\b": r"has '\\' in it",
    "a b": "has ' ' in it",
    "a\n": r"has '\n' in it",
    "a\0b": r"has '\x00' in it",
    "\x1b[31mred": r"has '\x1b', '[' in it",
    "a\u202eb": r"has '\u202e' in it",
    "e\u0301": "in it",
    "party[*]": "has '[', '*', ']' in it",
    "party[]": "in it",
    "[x": "in it",
    "a:b": "has ':' in it",
    f"{LONG}a": "is too long: 65 characters",
    "\U00020000" * 64: "is too long",  # more bytes than a file's name may have
}
GOOD = ["a", "été", "学生", "Zoë-2", "t.g1", "party[0]", "party[12].ema", "_x", "-", "9", LONG, "學" * 64]
KINDS = {
    "agents": lambda name: {
        "agents": {name: {"model": "mlp"}},
        "flows": [{"from": "labels", "to": name, "objective": "ce"}],
    },
    "streams": lambda name: {"streams": {name: {"of": "train"}}},
    "consensus": lambda name: {"consensus": {name: {"rule": "mean"}}},
    "placement": lambda name: {"placement": {name: ["s"]}},
    "name": lambda name: {"name": name},
}


def plan(**fields):
    base = {
        "data": "digits",
        "agents": {"s": {"model": "mlp"}},
        "flows": [{"from": "labels", "to": "s", "objective": "ce"}],
    }
    return make_plan(parse({**base, **fields}), registry())


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_none_is_refused_where_it_stands(kind):
    for name, why in BAD.items():
        with pytest.raises(MeshError) as caught:
            plan(**KINDS[kind](name))
        assert caught.value.where == kind and why in caught.value.what, name
        assert "letters, digits, `_`, `.`, `-` and `[n]`, at most 64" in caught.value.instead
        assert len(str(caught.value)) < 400 and str(caught.value).isprintable() is ("\n" not in str(caught.value))


@pytest.mark.parametrize("kind", ["agents", "streams", "placement", "name"])
def test_names_in_any_script_are_taken(kind):
    for name in GOOD:
        plan(**KINDS[kind](name))


@pytest.mark.parametrize(
    ("fields", "where", "said"),
    [
        ({"agents": {"a": {"model": "mlp"}, "A": {"model": "mlp"}}}, "agents", "'a' and 'A' differ in case alone"),
        ({"agents": {"ß": {"model": "mlp"}, "SS": {"model": "mlp"}}}, "agents", "'ß' and 'SS'"),
        ({"consensus": {"S": {"rule": "mean"}}}, "consensus", "'s' and 'S'"),
        ({"consensus": {"s": {"rule": "mean"}}}, "consensus", "'s' stands twice"),
        ({"consensus": {"labels": {"rule": "mean"}}}, "consensus", "`labels` names"),
        ({"placement": {"h": ["s"], "H": []}}, "placement", "'h' and 'H'"),
        ({"streams": {"x": {}, "X": {}}}, "streams", "'x' and 'X'"),
        ({"agents": {"p": {"model": "mlp", "count": 2}, "P[1]": {"model": "mlp"}}}, "agents", "'p[1]' and 'P[1]'"),
        ({"agents": {"p": {"model": "mlp", "count": 2}, "p[1]": {"model": "mlp"}}}, "agents", "'p[1]' stands twice"),
        ({"agents": {LONG: {"model": "mlp", "count": 2}}}, "agents", "is too long: 67"),
    ],
)
def test_names_that_some_file_systems_take_for_one_are_refused(fields, where, said):
    with pytest.raises(MeshError) as caught:
        plan(**{"flows": [], "connect": [], **fields})
    assert caught.value.where == where and said in caught.value.what


def test_what_a_strategy_draws_is_named_within_bounds_and_apart():
    spec = parse({"data": "digits", "agents": {LONG: {"model": "mlp"}, "C": {"model": "mlp"}}})
    canvas = Canvas(spec)
    names = [canvas.agent(hint, AgentSpec(model="mlp")) for hint in (f"{LONG}.ema", f"{LONG}.ema", "c")]
    assert all(fault(name) == "" for name in names) and twins(canvas.agents) is None and names[2] == "c2"


def test_a_plugin_that_places_agents_on_odd_hosts_is_refused(monkeypatch):
    monkeypatch.setattr(type(registry()), "ask", lambda self, hook, look, **about: {"../h": ["s"]})
    with pytest.raises(MeshError, match=r"placement: the name '../h' begins with a dot"):
        plan()


@given(st.text(max_size=80))
def test_a_name_that_passes_is_one_file_and_what_is_advised_passes(name):
    if not fault(name):
        assert name.isprintable() and not set(name) & set('/\\:*?"<>|\0') and name not in (".", "..")
        assert len(name.encode()) <= 200
    advised = instead(name).partition("such as ")[2]
    assert not advised or fault(advised) == ""
    assert folded(name.upper()) == folded(name.lower()) or not name.isascii()


def test_the_schema_tells_editors_the_form():
    from kdmesh.schema import json_schema

    assert json_schema()["properties"]["name"]["pattern"] == FORM
