"""What no run does, and what nothing would read, is refused by `plan` as by `check` and `run`, where it stands."""

from __future__ import annotations

import pytest

from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.plugins import registry
from kdmesh.spec.read import bundled, parse, read_mesh
from kdmesh.spec.yaml12 import dump, load

MESH = """
data: {data}
{top}
agents: {{t: {t}, u: {{model: mlp}}, s: {s}}}
consensus: {{c: {c}}}
flows:
  - {{from: labels, to: [t, u, s], objective: ce{labels}}}
  - {{from: [t, u], to: c{into}}}
  - {{from: c, to: s, objective: kl{out}}}
{flow}
"""
PLAIN = {"data": "{dataset: digits, transfer: 0.2}", "top": "", "t": "{model: mlp}", "s": "{model: mlp}", "c": "mean"}
PLAIN |= {"labels": "", "into": "", "out": "", "flow": ""}
FROZEN = {"t": "{model: mlp, update: frozen, weights: t.safetensors, train: {%s}}"}
FEW = "streams: {few: {%s}}"
CASES = [
    ({"s": "{model: mlp, view: {prompt: 'Q: {x}'}}"}, "agents.s.view.prompt", "has no effect"),
    ({"s": "{model: mlp, view: {draws: 2}}"}, "agents.s.view.draws", "no augmentations"),
    ({"s": "{model: mlp, init_of: t, seed: 3}"}, "agents.s.init_of", "given twice: `seed` and `init_of`"),
    ({"s": "{model: mlp, weights: a.safetensors, seed: 3}"}, "agents.s.seed", "initial weights are given twice"),
    ({"s": "{weights_of: t, seed: 3}", "flow": ""}, "agents.s.seed", "shares the weights of t"),
    ({"s": "{weights_of: t, train: {epochs: 3}}"}, "agents.s.train", "shares the weights of t"),
    ({"top": FEW % "generated_by: t"}, "streams.few.generated_by", "not run by this version"),
    ({"top": FEW % "prompts: train"}, "streams.few.prompts", "no agent writes this stream"),
    ({"top": FEW % "refresh: epoch"}, "streams.few.refresh", "no agent writes this stream"),
    ({"top": FEW % "shards: {of: [t, u], alpha: 0.1}"}, "streams.few.shards.alpha", "by: iid"),
    ({"top": FEW % "shards: {of: [t, u], by: dirichlet, classes: 3}"}, "streams.few.shards.classes", "by: dirichlet"),
    ({"top": FEW % "shards: {of: [t, u], by: class, column: x}"}, "streams.few.shards.column", "by: class"),
    ({"top": "text: {pack: true}"}, "text.pack", "language_modelling"),
    ({"top": "text: {vocabulary: prefix}"}, "text.vocabulary", "language_modelling"),
    ({"into": ", weight: 0.5"}, "flows.1.weight", "has no loss"),
    ({"into": ", lesson: own"}, "flows.1.lesson", "every lesson"),
    ({"out": ", mode: train"}, "flows.2.mode", "leaves c"),
    ({"out": ", sees: after"}, "flows.2.sees", "leaves c"),
    ({"out": ", tap: layers.0"}, "flows.2.tap", "its `tap` has no effect"),
    ({"labels": ", mode: eval"}, "flows.0.mode", "leaves labels"),
    ({"labels": ", detach: false"}, "flows.0.detach", "no gradient"),
    ({"c": "{rule: mean, include_self: false}"}, "consensus.c.include_self", "none of its readers is one of"),
]  # fmt: skip
KEPT = [*((field, f"{field}: 3") for field in ("epochs", "steps", "accumulate", "evaluate_every", "clip")),
        ("schedule", "schedule: cosine"), ("optimizer", "optimizer: sgd"), ("drop_last", "drop_last: true"),
        ("early_stopping", "early_stopping: {}")]  # fmt: skip


def refused(text):
    with pytest.raises(MeshError) as caught:
        refuse_unrun(make_plan(parse(load(text)), registry()), registry())
    return caught.value


@pytest.mark.parametrize(("parts", "where", "what"), CASES)
def test_it_is_refused_where_it_stands(parts, where, what):
    error = refused(MESH.format(**{**PLAIN, **parts}))
    assert error.where == where and what in error.what
    assert error.instead


@pytest.mark.parametrize(("field", "setting"), KEPT)
def test_what_only_learning_reads_is_refused_at_a_frozen_agent(field, setting):
    text = MESH.format(**{**PLAIN, "t": FROZEN["t"] % setting}).replace("to: [t, u, s]", "to: [u, s]")
    error = refused(text)
    assert error.where == f"agents.t.train.{field}" and "t is frozen" in error.what


@pytest.mark.parametrize("command", ["plan", "check", "run"])
def test_every_command_says_so(command, tmp_path, capsys):
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text(MESH.format(**{**PLAIN, "s": "{model: mlp, view: {prompt: x}}"}), encoding="utf-8")
    assert main([command, str(mesh)]) == 2
    assert capsys.readouterr().err.startswith(f"kdmesh: error: {mesh}: agents.s.view.prompt: ")


@pytest.mark.parametrize("name", bundled())
def test_the_bundled_meshes_run_and_so_do_their_long_forms_with_every_default(name):
    plan = make_plan(read_mesh(name), registry())
    refuse_unrun(plan, registry())
    refuse_unrun(
        make_plan(parse(load(dump(plan.resolved().model_dump(mode="json", by_alias=True)))), registry()), registry()
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{of: s, lesson: main, to: c}", "`to` belongs to a line with `publish`"),
        ("{of: s, repeat: 2, until: {}, do: [{lesson: main}]}", "`until` needs `agreement` or `patience`"),
        ("{of: s, repeat: 2, do: [{of: s, lesson: main}]}", "`of` belongs to the outermost line"),
    ],
)
def test_a_line_of_a_program_with_a_field_that_says_nothing(line, what):
    with pytest.raises(MeshError, match=what):
        parse(load(MESH.format(**{**PLAIN, "top": f"program: [{line}]"})))


@pytest.mark.parametrize(
    ("connect", "where", "what"),
    [
        ("ensemble: {teachers: t, student: s, consensus: maen}", "ensemble.consensus", "unknown consensus rule 'maen'"),
        (
            "ensemble: {teachers: t, student: s, consensus: {median: {foo: 1}}}",
            "ensemble.consensus.median.foo",
            "field",
        ),
        (
            "ensemble: {teachers: t, student: s, consensus: vote}",
            "ensemble.consensus",
            "has no effect: there is one source only",
        ),
        ("chain: {agents: [t, u, s], consensus: maen}", "chain.consensus", "unknown consensus rule 'maen'"),
        ("chain: {agents: [t, u, s], consensus: vote}", "chain.consensus", "has no effect: there is one source only"),
        ("chain: {agents: [t, s], consensus: {trimmed_mean: {trim: 3}}}", "chain.consensus.trimmed_mean.trim", "3"),
        ("chain: {agents: [t, s], objective: {kl: {foo: 1}}}", "chain.objective.kl.foo", "unknown field"),
    ],
)
def test_a_consensus_is_checked_where_one_source_has_none(connect, where, what):
    text = (
        f"data: digits\nagents: {{t: {{model: mlp}}, u: {{model: mlp}}, s: {{model: mlp}}}}\nconnect: [{{{connect}}}]"
    )
    error = refused(text)
    assert error.where == f"connect.0.{where}" and what in error.what


def test_the_mean_of_one_source_is_itself():
    text = (
        "data: digits\nagents: {t: {model: mlp}, s: {model: mlp}}\nconnect: [{ensemble: {teachers: t, student: s, %s}}]"
    )
    plans = [make_plan(parse(load(text % more)), registry()) for more in ("consensus: mean", "labels: 0.5")]
    assert plans[0].spec.flows == plans[1].spec.flows and not plans[0].consensus
