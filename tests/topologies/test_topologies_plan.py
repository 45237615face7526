"""Each bundled topology is short, names its paper, plans, and equals its own long form."""

from __future__ import annotations

import re

import pytest

from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import bundled, parse, read_mesh
from kdmesh.spec.yaml12 import dump, load

FILES = bundled()
GENERATIONS = {
    "api-classifier": [1],
    "assistant-chain": [1, 1, 1],
    "augment": [3, 1],
    "born-again": [1, 1, 1],
    "confidence-ensemble": [3, 1],
    "council": [3, 1],
    "deep-mutual": [1],
    "dense-chain": [1, 1, 1, 1],
    "ds-fl": [1],
    "ensemble": [3, 1],
    "ensemble-then-mutual": [2, 1, 1],
    "fedavg": [1],
    "feddf": [1],
    "fedgkt": [1],
    "debate": [3, 1],
    "hint": [1, 1],
    "mean-teacher": [1],
    "multi-label": [3, 1],
    "on-policy": [1, 1],
    "one-shot": [4, 1],
    "parties": [1],
    "pate": [40, 1],
    "previous-batch": [1],
    "previous-epoch": [1],
    "privileged-self": [1],
    "prototypes": [1],
    "ranking": [3, 1],
    "rationale": [1, 1],
    "regression": [3, 1],
    "ring": [1],
    "sequence-level": [1, 1],
    "single-teacher": [1, 1],
    "specialists": [3, 1],
    "stale-codistillation": [1],
    "star": [1, 1, 1],
    "swa": [1],
    "votes": [6, 1],
}
LONG = (
    "augment",
    "ds-fl",
    "fedavg",
    "feddf",
    "fedgkt",
    "on-policy",
    "one-shot",
    "pate",
    "privileged-self",
    "prototypes",
    "rationale",
    "sequence-level",
    "swa",
    "votes",
)  # what no strategy draws
OTHER_DATA = {"multi-label": "digit_attributes", "ranking": "digit_lists", "regression": "diabetes"}
OTHER_DATA |= {"api-classifier": "text", "on-policy": "sums", "privileged-self": "sums", "sequence-level": "sums"}
OTHER_DATA |= {"augment": "numerals", "debate": "sums", "star": "sums", "rationale": "sums"}
each = pytest.mark.parametrize("name", FILES)


def shape(plan):
    return [
        (s.name, s.generation, s.weights, s.waits, s.program, {k: v.text() for k, v in s.phases.items()})
        for s in plan.stages
    ]


def test_all_are_known():
    assert sorted(FILES) == sorted(GENERATIONS)


@each
def test_it_is_short_and_says_what_it_is(name):
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    assert len(lines) < 25
    assert max(map(len, lines)) <= 120
    assert re.match(r"# .+, (19|20)\d\d", lines[0])
    mesh = read_mesh(name)
    assert mesh.name == name
    assert mesh.description.endswith(".")
    assert mesh.data is not None and mesh.data.dataset.name == OTHER_DATA.get(name, "digits")
    assert (bool(mesh.connect), bool(mesh.flows)) == ((False, True) if name in LONG else (True, False))


@each
def test_it_plans(name):
    plan = make_plan(read_mesh(name), registry())
    sizes = [0] * len(GENERATIONS[name])
    for stage in plan.stages:
        sizes[stage.generation] += 1
    assert sizes == GENERATIONS[name]


@each
def test_its_long_form_is_the_same_mesh(name):
    plan = make_plan(read_mesh(name), registry())
    written = dump(plan.spec.dump())
    again = make_plan(parse(load(written)), registry())
    assert dump(again.spec.dump()) == written
    assert shape(again) == shape(plan)
    assert again.hosts == plan.hosts


def test_descriptions_differ():
    assert len({read_mesh(name).description for name in FILES}) == len(FILES)
