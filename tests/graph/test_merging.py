"""Flows `as: weights`: what a plan makes of them, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kdmesh.engine.check import examine
from kdmesh.engine.controls import alone, from_best
from kdmesh.engine.dropping import obstacle
from kdmesh.errors import MeshError
from kdmesh.graph.idle import idle
from kdmesh.graph.plan import Plan
from kdmesh.graph.planner import make_plan
from kdmesh.graph.roles import roles
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.plugins import registry
from kdmesh.report.plan_data import plan_json
from kdmesh.report.plan_text import plan_text
from kdmesh.spec.read import parse


def mesh(text: str, **more: Any) -> Plan:
    fields = {"data": {"dataset": "digits"}, **yaml.safe_load(text), **more}
    fields["agents"] = {name: {"model": "mlp", **(agent or {})} for name, agent in fields["agents"].items()}
    return make_plan(parse(fields), registry())


SERVER = """
agents: {s: {update: merged}, a: {}, b: {}}
flows:
- {from: labels, to: [a, b], objective: ce}
- {from: [a, b], to: s, as: weights, refresh: round}
- {from: s, to: [a, b], as: weights, refresh: round}
program: [{of: [a, b, s], repeat: 2, do: [{train: [a, b], epochs: 1}, {publish: [a, b]}, {publish: s}]}]
"""


def test_those_whose_weights_flow_around_are_one_stage() -> None:
    plan = mesh(SERVER)
    (stage,) = plan.stages
    assert stage.weights == ["a", "b", "s"] and all(
        phase.text() == "f.a f.b | u.a u.b" for phase in stage.phases.values()
    )
    assert plan.merging.sources() == {"s": ["a", "b"], "a": ["s"], "b": ["s"]}
    assert roles(plan) == {"s": "average", "a": "peer", "b": "peer"}
    assert [str(flow) for flow in plan.merging.into(["s"])] == ["a -> s", "b -> s"]
    assert len(plan.graph().edges) == 2 + 4


def test_between_stages_weights_flow_once_and_need_no_program() -> None:
    plan = mesh("""
agents: {a: {}, b: {}, soup: {update: merged}, c: {}}
flows:
- {from: labels, to: [a, b, c], objective: ce}
- {from: [a, b], to: soup, as: weights}
- {from: soup, to: c, as: weights}
""")
    assert [(stage.name, stage.generation) for stage in plan.stages] == [("a", 0), ("b", 0), ("soup", 1), ("c", 2)]
    assert [flow.refresh for flow in plan.merging.flows] == ["once"] * 3
    assert plan.stage("soup").program.body == [] and plan.stage("soup").phases == {}
    refuse_unrun(plan, registry())


def test_the_long_form_is_the_same_plan() -> None:
    text = SERVER.replace("to: s, as: weights", "to: s, as: weights, weight: samples, stream: validation")
    plan = mesh(text.replace("- {from: s", "- {from: a, to: b, as: weights, weight: 3, refresh: 2 steps}\n- {from: s"))
    again = make_plan(plan.resolved(), registry())
    told = [
        [(str(flow), flow.weight, flow.refresh, flow.stream) for flow in one.merging.flows] for one in (plan, again)
    ]
    assert told[0] == told[1] and told[0][0] == ("a -> s", "samples", "round", "validation")
    assert told[0][2] == ("a -> b", 3.0, "2 steps", "train")


POOLED = """
agents: {a: {}, b: {}, c: {}}
consensus: {near: mean, all: {rule: median}}
flows:
- {from: labels, to: [a, b, c], objective: ce}
- {from: [a, b], to: near, as: weights, refresh: epoch}
- {from: [near, c], to: all, as: weights, refresh: null}
- {from: all, to: [a, b, c], as: weights}
"""


def test_consensus_nodes_of_weights_are_none_of_signals() -> None:
    text = POOLED.replace(
        "- {from: [near, c], to: all, as: weights, refresh: null}",
        """
- {from: near, to: all, as: weights}
- {from: c, to: all, as: weights, refresh: 3 steps}""",
    )
    plan = mesh(text)
    assert not plan.consensus and list(plan.merging.pools) == ["near", "all"]
    assert plan.merging.readers("near") == ["a", "b", "c"]
    assert [str(leaf) for leaf in plan.merging.behind(plan.merging.into("a")[0])] == [
        "a -> near",
        "b -> near",
        "c -> all",
    ]
    data = plan_json(plan)
    assert data["consensus"]["all"]["space"] == "weights" and len(data["weights"]) == 7
    said = plan_text(plan)
    assert "Weights that flow" in said and "3 steps" in said and "7 weight flows" in said
    assert make_plan(plan.resolved(), registry()).merging.pools.keys() == plan.merging.pools.keys()


def two(flow: str, agents: str = "a: {}, b: {}", more: str = "") -> str:
    return f"agents: {{{agents}}}\n{more}\nflows:\n- {{from: labels, to: a, objective: ce}}\n{flow}"


INTO = "- {from: a, to: b, as: weights, refresh: epoch"
NET = "- {from: a, to: c, as: weights, refresh: epoch}\n- {from: c, to: b, as: weights}"
CASES: list[tuple[str, str, str]] = [
    (two(INTO + ", objective: kl}"), "flows.1.objective", "weights flow here, and no signal or loss"),
    (two(INTO + ", signal: logits}"), "flows.1.signal", "weights flow here"),
    (two(INTO + ", lesson: x}"), "flows.1.lesson", "weights flow here"),
    (two(INTO + ", detach: false}"), "flows.1.detach", "weights flow here"),
    (two(INTO + ", stream: train}"), "flows.1.stream", "weights are made on no stream"),
    (two(INTO + ", weight: samples, stream: trian}"), "flows.1.stream", "unknown stream 'trian'"),
    (two(INTO + ", weight: -1}"), "flows.1.weight", "its share of what arrives"),
    (two(INTO + ", weight: {start: 0, end: 1, epochs: 2}}"), "flows.1.weight", "its share of what arrives"),
    (two("- {from: a, to: b, as: weights, refresh: step}"), "flows.1.refresh", "between steps, not within"),
    (two("- {from: labels, to: b, as: weights}"), "flows.1.from", "labels have no weights"),
    (two("- {from: a, to: bb, as: weights}"), "flows.1.to", "unknown agent or consensus 'bb'"),
    (two("- {from: a, to: b, objective: kl, weight: samples}"), "flows.1.weight", "for flows `as: weights`"),
    (two(INTO + "}", "a: {}, b: {update: frozen}"), "flows.1", "b is frozen, so no weights can flow into it"),
    (two(INTO + "}", "a: {}, b: {update: {ema: {of: a}}}"), "flows.1", "b follows a, so no weights"),
    (two("- {from: a, to: a, as: weights, refresh: epoch}", "a: {}"), "flows.1", "only its own weights"),
    (two("", "a: {}, b: {update: merged}"), "agents.b.update", "nothing flows into this agent"),
    (two(INTO + "}\n- {from: labels, to: b, objective: ce}", "a: {}, b: {update: merged}"), "flows.2", "b is merged"),
    (two(INTO + "}", "a: {}, b: {}"), "agents.b", "nothing teaches this agent"),
    (
        two(INTO + "}", "a: {}, b: {update: merged}, e: {update: {ema: {of: b}}}"),
        "agents.e.update.ema.of",
        "its weights are merged",
    ),
    (
        two(INTO + "}", "a: {}, b: {update: merged, train: {optimizer: sgd}}"),
        "agents.b.train.optimizer",
        "so `optimizer` has no effect",
    ),
    (
        two(INTO + "}", "a: {}, b: {update: merged, train: {early_stopping: {}}}"),
        "agents.b.train.early_stopping",
        "has no effect",
    ),
    (two(INTO + "}", "a: {}, b: {update: merged, gate: {gap: {of: a}}}"), "agents.b.gate", "b is merged"),
    (
        two("- {from: a, to: b, as: weights}\n- {from: b, to: a, as: weights}", "a: {}, b: {update: merged}"),
        "flows.1.refresh",
        "when do weights flow? a -> b is in a cycle",
    ),
    (
        two("- {from: a, to: b, as: weights, refresh: round}", "a: {}, b: {update: merged}"),
        "flows.1.refresh",
        "weights of a flow where the program of b publishes them",
    ),
    (
        two(
            "- {from: f, to: b, as: weights, refresh: epoch}\n- {from: b, to: a, as: weights}",
            "a: {}, b: {update: merged}, f: {update: frozen}",
        ),
        "flows.1.refresh",
        "no step or epoch ends there",
    ),
    (two(NET, "a: {}, b: {update: merged}", "consensus: {c: vote}"), "consensus.c.rule", "does not combine weights"),
    (
        two(NET, "a: {}, b: {update: merged}", "consensus: {c: {rule: mean, space: probs}}"),
        "consensus.c.space",
        "its space is `weights`",
    ),
    (
        two(NET, "a: {}, b: {update: merged}", "consensus: {c: {rule: mean, temperature: 2}}"),
        "consensus.c.temperature",
        "`temperature` has no effect",
    ),
    (
        two(NET, "a: {}, b: {update: merged}", "consensus: {c: {rule: mean, include_self: false}}"),
        "consensus.c.include_self",
        "none of its readers",
    ),
    (
        two(NET.replace("epoch", "once"), "a: {}, b: {update: merged}", "consensus: {c: running_average}"),
        "flows.1.refresh",
        "keeps count of what flows again and again",
    ),
    (
        two(NET + "\n- {from: a, to: c, refresh: epoch}", "a: {}, b: {update: merged}", "consensus: {c: mean}"),
        "flows.3",
        "combines weights, and a signal flows here",
    ),
    (
        two(NET.replace("epoch}", "epoch, weight: 2}"), "a: {}, b: {update: merged}", "consensus: {c: mean}"),
        "flows.1.weight",
        "weighed by its rule",
    ),
    (
        two(NET.replace("to: b, as: weights", "to: b, as: weights, refresh: epoch"), more="consensus: {c: mean}"),
        "flows.2.refresh",
        "stands on flows that leave an agent",
    ),
    (
        two(NET.replace("to: b, as: weights", "to: b, as: weights, weight: samples"), more="consensus: {c: mean}"),
        "flows.2.weight",
        "c has no samples",
    ),
    (two("- {from: a, to: c, as: weights}", "a: {}", "consensus: {c: mean}"), "consensus.c", "flow nowhere"),
    (
        two(NET, "a: {}, b: {update: merged}", "consensus: {c: median}"),
        "consensus.c.rule",
        "a is the only source of c",
    ),
    (two("- {from: c, to: a, as: weights}", "a: {}", "consensus: {c: mean}"), "consensus.c", "no weights flow into"),
    (
        two(
            NET + "\n- {from: c, to: d, as: weights}\n- {from: d, to: c, as: weights}",
            "a: {}, b: {update: merged}",
            "consensus: {c: mean, d: mean}",
        ),
        "flows",
        "feed each other in a cycle",
    ),
    (
        two(
            "- {from: [a, b], to: c, as: weights, refresh: epoch}\n- {from: c, to: [a, b], as: weights}",
            more="consensus: {c: {rule: running_average, include_self: false}}",
        ),
        "consensus.c.include_self",
        "combines once for all readers",
    ),
]


@pytest.mark.parametrize(("text", "where", "what"), CASES, ids=range(len(CASES)))
def test_what_cannot_be_is_refused_where_it_stands(text: str, where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        refuse_unrun(mesh(text), registry())
    assert caught.value.where == where and what in caught.value.what and caught.value.instead


def test_what_is_switched_off_is_told() -> None:
    one = mesh(
        two(INTO + ", weight: 0}\n- {from: a, to: b, as: weights, refresh: 2 steps}", "a: {}, b: {update: merged}")
    )
    assert idle(one, registry()) == ["flows.1: the weight of a -> b is 0, so it brings nothing"]
    refuse_unrun(one, registry())
    own = mesh(two(NET.replace("to: b", "to: a"), "a: {}", "consensus: {c: running_average}"))
    assert idle(own, registry()) == []  # what it was counts
    refuse_unrun(own, registry())
    other = mesh(two(NET, "a: {}, b: {update: merged}", "consensus: {c: mean}"))
    assert idle(other, registry()) == ["consensus.c: c combines one source only, so it brings what a brings"]


UNLIKE: list[tuple[str, str]] = [
    ("b: {model: {mlp: {hidden: [8]}}, update: merged}", "weights of a do not fit b: they differ in "),
    ("b: {model: {cnn: {width: 4}}, update: merged}", "and 4 more"),
    ("b: {update: merged, labels: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}", "stand for different classes, all and [0, 1"),
]


@pytest.mark.parametrize(("agent", "what"), UNLIKE)
def test_unlike_agents_are_refused_by_what_differs(agent: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(mesh(two(INTO + "}", f"a: {{}}, {agent}")))
    assert caught.value.where == "flows.1" and what in caught.value.what


def test_entries_are_named_with_type_and_shape() -> None:
    with pytest.raises(MeshError, match=r"layers\.0\.linear\.weight \(float32 \[64, 64\], float32 \[8, 64\]\)"):
        examine(mesh(two(INTO + "}", "a: {}, b: {model: {mlp: {hidden: [8]}}, update: merged}")))


def test_weights_that_learned_in_private_are_noted_where_they_leave() -> None:
    private = {"own": {"of": "train", "shards": {"of": ["a", "b"]}, "private": True}}
    text = SERVER.replace("objective: ce", "objective: ce, stream: own")
    notes = examine(mesh(text, streams=private)).notes
    (note,) = [text for text in notes if "private" in text]
    assert note.startswith("weights of a, b, learned on the private stream 'own', flow to s: samples and signals stay")


def test_what_flows_is_learned_by_whom_it_reaches() -> None:
    found = examine(mesh(two(INTO + "}", "a: {}, b: {update: merged}")))
    assert found.learned["b"] == found.learned["a"] and found.learned["a"][0]["samples"] > 0


def test_who_gives_weights_is_not_dropped() -> None:
    plan = mesh(two("- {from: f, to: a, as: weights}", "a: {}, f: {update: frozen}"), placement="spread")
    assert obstacle(plan, ["f"], plan.stages) == "weights of f flow into a"


def test_controls_go_without_weights_of_others(tmp_path: Any) -> None:
    plan = mesh("""
agents: {t: {}, u: {}, s: {}}
flows:
- {from: labels, to: [t, u, s], objective: ce}
- {from: [t, u], to: s, objective: kl}
- {from: t, to: s, as: weights}
- {from: s, to: s, as: weights, refresh: epoch}
""")
    one = alone(plan, "s", 8)
    best = from_best(plan, "s", "t", tmp_path)
    assert best is not None
    for spec in (one, best):
        assert all(flow.as_ == "target" for flow in spec.flows)
        refuse_unrun(make_plan(spec, registry()), registry())


def test_a_publication_of_weights_sends_something():
    spec = {
        "name": "w", "data": "digits",
        "agents": {name: {"model": {"mlp": {"hidden": [4]}}} for name in "ab"},
        "flows": [
            {"from": "labels", "to": ["a", "b"], "objective": "ce"},
            {"from": "a", "to": "b", "as": "weights", "refresh": "round"},
        ],
        "program": [
            {"of": ["a", "b"], "repeat": 2, "do": [{"train": ["a", "b"], "epochs": 1}, {"publish": ["a", "b"]}]}
        ],
        "train": {"batch_size": 32, "optimizer": {"sgd": {"lr": 0.1}}},
    }  # fmt: skip
    notes = [note for note in idle(make_plan(parse(spec), registry()), registry()) if "sends nothing" in note]
    assert notes == ["program of a: `publish: b` sends nothing: no flow of b has `refresh: round`"]
