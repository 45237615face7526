"""Flows `as: input` into agents: what a plan makes of them, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kdmesh.engine.check import examine
from kdmesh.engine.controls import alone
from kdmesh.engine.dropping import obstacle
from kdmesh.errors import MeshError
from kdmesh.graph.plan import Plan
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.plugins import registry
from kdmesh.spec.read import parse


def mesh(text: str, **more: Any) -> Plan:
    fields = {"data": {"dataset": "digits"}, **yaml.safe_load(text), **more}
    fields["agents"] = {
        name: {**({} if "weights_of" in (agent or {}) else {"model": "mlp"}), **(agent or {})}
        for name, agent in fields["agents"].items()
    }
    return make_plan(parse(fields), registry())


def two(flow: str, agents: str = "a: {}, b: {}", more: str = "") -> str:
    labels = "- {from: labels, to: [a, b], objective: ce}\n"
    return f"agents: {{{agents}}}\n{more}\nflows:\n{labels}{flow}"


INTO = "- {from: a, to: b, as: input, signal: hidden, tap: layers.0"


def test_a_live_input_comes_before_its_reader_s_forward() -> None:
    plan = mesh(two(INTO + ", refresh: step}"))
    (phase,) = plan.stages[0].phases.values()
    assert phase.text() == "f.a | f.b u.a | u.b"
    assert plan.inputs["b"].source == "a"
    again = make_plan(plan.resolved(), registry())
    assert [one.text() for one in again.stages[0].phases.values()] == [phase.text()]


def test_a_stored_input_needs_no_forward_and_orders_stages() -> None:
    plan = mesh(two(INTO + "}"))
    assert [(stage.name, stage.generation) for stage in plan.stages] == [("a", 0), ("b", 1)]
    assert [phase.text() for phase in plan.stages[1].phases.values()] == ["f.b | u.b"]


def test_who_reads_it_needs_the_input_too() -> None:
    flows = INTO + ", refresh: step}\n- {from: b, to: c, objective: kl, refresh: step}"
    plan = mesh(two(flows, "a: {}, b: {}, c: {}", "program: [{of: [a, b, c], do: [{train: [c]}, {train: [a, b, c]}]}]"))
    first, _ = plan.stages[0].phases.values()
    assert first.text() == "f.a f.c | f.b | u.c" and [str(edge) for edge in first.edges] == ["b -> c", "a -> b"]


CASES: list[tuple[str, str, str]] = [
    (two(INTO + ", objective: kl}"), "flows.1.objective", "an input adds no loss"),
    (two(INTO + ", weight: 2}"), "flows.1.weight", "an input has no loss"),
    (two(INTO + ", lesson: main}"), "flows.1.lesson", "is always there"),
    (two("- {from: labels, to: b, as: input}"), "flows.1.from", "labels are no input"),
    (
        two("- {from: a, to: c}\n- {from: c, to: b, as: input}", more="consensus: {c: mean}"),
        "flows.2.from",
        "c is a consensus",
    ),
    (two("- {from: b, to: b, as: input, refresh: step}"), "flows.1", "b would see its own output"),
    (two("- {from: a, to: b, as: input, refresh: epoch, stale: snapshot}"), "flows.1.stale", "live or published"),
    (
        two("- {from: [a, c], to: b, as: input}\n- {from: labels, to: c, objective: ce}", "a: {}, b: {}, c: {}"),
        "flows.1",
        "b has two inputs, a -> b and c -> b",
    ),
    (
        two("- {from: a, to: b, as: input, refresh: epoch}\n- {from: b, to: a, as: input, refresh: epoch}"),
        "flows.1",
        "see each other's outputs in a cycle: b -> a -> b",
    ),
    (
        two(INTO + "}\n- {from: labels, to: b, objective: ce, stream: few}", more="streams: {few: {size: 50}}"),
        "flows.2",
        "and of 'few' there is none",
    ),
    (
        two(
            INTO + ", stream: r}\n- {from: labels, to: b, objective: ce, stream: r}",
            more="streams: {r: {replay: true}}",
        ),
        "flows.1.stream",
        "that replays another",
    ),
    (
        two(INTO + ", refresh: step}\n- {from: b, to: a, objective: kl, refresh: epoch}"),
        "flows.2",
        "nothing of it can be published",
    ),
    (
        two(INTO + ", refresh: epoch}\n- {from: b, to: a, objective: kl, refresh: epoch, stale: snapshot}"),
        "flows.2",
        "old weights of b have no input of then",
    ),
    (two(INTO + "}", "a: {}, b: {view: {augment: [shift]}}"), "agents.b.view.augment", "none to augment"),
    (
        "agents: {a: {}, b: {update: frozen}, c: {}}\nflows:\n- {from: labels, to: [a, c], objective: ce}\n"
        + INTO
        + "}\n- {from: b, to: c, objective: kl}",
        "agents.b.update",
        "b is frozen",
    ),
    (
        two(INTO + "}", more="streams: {made: {generated_by: b, refresh: step}}"),
        "streams.made.generated_by",
        "so it can write none",
    ),
]


@pytest.mark.parametrize(("text", "where", "what"), CASES, ids=range(len(CASES)))
def test_what_cannot_be_is_refused_where_it_stands(text: str, where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        refuse_unrun(mesh(text), registry())
    assert caught.value.where == where and what in caught.value.what and caught.value.instead


def test_models_are_built_for_what_they_see() -> None:
    agents = "b: {model: {mlp: {hidden: [4]}}}, c: {weights_of: b}, a: {model: {mlp: {hidden: [7]}}}"
    flows = (
        INTO + "}\n- {from: a, to: c, as: input, signal: hidden, tap: layers.0}\n- {from: labels, to: c, objective: ce}"
    )
    found = examine(mesh(two(flows, agents)))
    assert found.parameters["b"] == found.parameters["c"] == 7 * 4 + 4 + 4 * 10 + 10
    logits = examine(mesh(two("- {from: a, to: b, as: input}")))
    assert logits.parameters["b"] == 10 * 64 + 64 + 64 * 10 + 10


def test_views_of_one_model_see_alike() -> None:
    agents = "b: {}, c: {weights_of: b}, a: {model: {mlp: {hidden: [7]}}}, d: {model: {mlp: {hidden: [5]}}}"
    flows = (
        INTO
        + "}\n- {from: d, to: c, as: input, signal: hidden, tap: layers.0}\n- {from: labels, to: [c, d], objective: ce}"
    )
    with pytest.raises(MeshError, match=r"agents\.c\.model: the model cannot forward samples of shape \(5,\)"):
        examine(mesh(two(flows, agents)))


def test_what_is_made_on_a_private_stream_does_not_leave() -> None:
    private = {"own": {"of": "train", "private": True}}
    text = two(INTO + ", stream: own, refresh: step}").replace("objective: ce", "objective: ce, stream: own")
    mesh(text, streams=private, placement="together")
    with pytest.raises(MeshError, match="would carry signals made on it away from their agent"):
        mesh(text, streams=private, placement={"left": ["a"], "right": ["b"]})


def test_it_is_not_dropped_and_has_no_control() -> None:
    plan = mesh(
        "agents: {f: {update: frozen}, b: {}}\nflows:\n- {from: labels, to: b, objective: ce}\n"
        + INTO.replace("from: a", "from: f")
        + "}",
        placement="spread",
    )
    assert obstacle(plan, ["f"], plan.stages) == "b is informed by f"
    with pytest.raises(MeshError, match="b sees what f says of a sample"):
        alone(plan, "b", 4)
