"""Settings that do nothing beside others: refused where that is sure, told where ablations and sweeps write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kdmesh.contracts.events import Note
from kdmesh.engine import controls
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.notes import unused_inline
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.idle import idle, untaught
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.plugins import registry
from kdmesh.spec import Ramp
from kdmesh.spec.override import apply
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import load

MESH = """
data: {data}
{top}
agents: {{t: {{model: mlp{t}}}, u: {{model: mlp}}, v: {{model: mlp}}, s: {{model: {model}{s}}}{agents}}}
consensus: {{c: {c}}}
flows:
  - {{from: labels, to: [{learn}], objective: ce}}
  - {{from: [{sources}], to: c{into}}}
  - {{from: c, to: s, objective: {{{objective}: {{{settings}}}}}{out}}}
{flow}
train: {{epochs: 1, batch_size: 64}}
"""
PLAIN = {"data": "{dataset: digits, train: 100}", "c": "mean", "learn": "t, u, v, s", "sources": "t, u, v"}
PLAIN |= {"objective": "kl", "settings": "temperature: 4", "model": "mlp"}
PLAIN |= dict.fromkeys(("top", "t", "s", "agents", "into", "out", "flow"), "")
FROZEN = {"t": ", update: frozen", "learn": "u, v, s"}
ROUNDS = "program: [{of: [t, u, v, s], repeat: %d%s, do: [{lesson: main, epochs: 1}%s]}]"
SENT = ", {publish: [t, u, v]}"


def spec(parts):
    return load(MESH.format(**{**PLAIN, **parts}))


def plan_of(given):
    plan = make_plan(parse(given), registry())
    refuse_unrun(plan, registry())
    refuse_unrun(make_plan(parse(plan.resolved().model_dump(mode="json", by_alias=True)), registry()), registry())
    return plan


def connected(strategy, **more):
    agents = {name: {"model": "mlp"} for name in "abs"}
    return {"data": {"dataset": "digits", "transfer": 0.2}, "agents": agents, "connect": [load(strategy)], **more}


REFUSED = [
    (spec({"c": "{rule: mean, space: logits, temperature: 4}"}), "consensus.c.temperature", "combines logits"),
    (spec({"c": "{rule: mean, space: loss, temperature: 2}"}), "consensus.c.temperature", "combines loss"),
    (
        spec({"c": "{rule: mean, temperature: 2}", "objective": "mse", "settings": ""}),
        "consensus.c.temperature",
        "combines logits",
    ),
    (spec({"sources": "t", "c": "median"}), "consensus.c.rule", "t is the only source"),
    (spec({"sources": "t", "c": "{weighted: {weights: [1]}}"}), "consensus.c.rule", "t is the only source"),
    (spec({"c": "{trimmed_mean: {trim: 0.25}}"}), "consensus.c.rule.trimmed_mean.trim", "no effect with 3 sources"),
    (spec({**FROZEN, "into": ", sees: after"}), "flows.1.sees", "t is not updated"),
    (spec({"flow": "  - {from: t, to: s, sees: after, objective: kl}"}), "flows.3.sees", "t is not updated"),
    (connected("chain: {agents: [a, s], dense: true}"), "connect.0.chain.dense", "of two links"),
    (
        connected("rounds: {students: [a, b], include_self: true, consensus: {rule: mean, include_self: false}}"),
        "connect.0.rounds",
        "true here and false in `consensus`",
    ),
    (
        connected("rounds: {teachers: s, students: [a, b], labels: null, local_epochs: 3}"),
        "connect.0.rounds",
        "`local_epochs` has no effect",
    ),
]


@pytest.mark.parametrize(("given", "where", "said"), REFUSED)
def test_what_can_do_nothing_is_refused_with_what_to_write(given, where, said):
    with pytest.raises(MeshError) as refused:
        plan_of(given)
    assert refused.value.where == where and said in refused.value.what
    assert refused.value.instead or where == "connect.0.rounds"


@pytest.mark.parametrize(
    ("sources", "trim", "fits"),
    [("t, u, v", 0.25, "trim: 0.34, which leaves out one at each end"), ("t, u", 0.4, "rule: mean, or median")],
)
def test_what_is_said_instead_of_a_trim_fits(sources, trim, fits):
    with pytest.raises(MeshError) as refused:
        plan_of(spec({"sources": sources, "c": f"{{trimmed_mean: {{trim: {trim}}}}}"}))
    assert refused.value.instead.startswith(fits)
    least = registry().check("consensus", "trimmed_mean", {"trim": 0.34})
    assert least.cut(3) == 1 and not least.unused(3)


TOLD = [
    (spec({"out": ", weight: 0"}), "flows.2: the weight of c -> s is 0, so it adds no loss"),
    (spec({"out": ", weight: {start: 0, end: 0, epochs: 3}"}), "flows.2: the weight of c -> s is 0"),
    (spec({"out": ", weight: {start: 1, end: 1, epochs: 3}"}), "`epochs` has no effect"),
    (spec({"out": ", weight: {start: 0, end: 1, epochs: 1}"}), "flows.2.weight: a ramp of one epoch"),
    (spec({"sources": "t"}), "consensus.c: c combines one source only, so it says what t says"),
    (spec({"c": "{trimmed_mean: {trim: 0}}"}), "`trim: 0.0` of trimmed_mean has no effect: no source is left out"),
    (spec({"c": "trimmed_mean"}), "consensus.c.rule: `trim` of trimmed_mean has no effect with 3 sources: trim: 0.34"),
    (spec({"c": "{threshold_vote: {votes: 1}}"}), "`votes: 1` of threshold_vote has no effect"),
    (spec({"s": ", view: {augment: [{noise: {std: 0}}]}"}), "agents.s.view.augment.0: `std: 0.0` of noise"),
    (spec({"s": ", view: {augment: [shift, {shift: {pixels: 0}}]}"}), "agents.s.view.augment.1: `pixels: 0` of shift"),
    (spec({"s": ", view: {augment: [{flip: {p: 0}}]}"}), "`p: 0.0` of flip has no effect"),
    (spec({"s": ", view: {augment: [{drop: {p: 0}}]}"}), "`p: 0.0` of drop has no effect"),
    (spec({"settings": "t2_scale: false"}), "flows.2.objective: `t2_scale: false` of kl has no effect"),
    (spec({"objective": "skewed_kl", "settings": "skew: 0"}), "`skew: 0.0` of skewed_kl has no effect"),
    (spec({"out": ", gate: {small_loss: {forget: 0}}"}), "flows.2.gate: `forget: 0.0` of small_loss has no effect"),
    (spec({"out": ", gate: {confident: {start: 0}}"}), "`start: 0.0` of confident has no effect"),
    (spec({"out": ", gate: {confident: {epochs: 1}}"}), "`start: 0.9` of confident has no effect"),
    (spec({"out": ", gate: {confident: {start: 0.5, end: 0.5, epochs: 4}}"}), "`epochs: 4` of confident has no effect"),
    (
        spec({**FROZEN, "flow": "  - {from: t, to: s, refresh: epoch, objective: kl}"}),
        "flows.3: t is frozen, so `refresh: epoch` has no effect",
    ),
    (spec({"top": ROUNDS % (1, ", until: {patience: 1}", SENT), "into": ", refresh: round"}), "with one round"),
    (
        spec({"top": ROUNDS % (4, ", until: {patience: 3}", SENT), "into": ", refresh: round"}),
        "`patience: 3` has no effect: it ends nothing before round 4, of 4",
    ),
    (
        spec({"top": ROUNDS % (3, "", ", {publish: t}"), "into": ", refresh: step"}),
        "`publish: t` sends nothing: no flow of t has `refresh: round`",
    ),
    (
        spec({"agents": ", e: {model: mlp, update: {ema: {of: s, decay: 0, warmup: true}}}"}),
        "agents.e.update.ema: `warmup` has no effect with `decay: 0`",
    ),
    (
        connected("rounds: {students: [a, b, s]}", train={"epochs": 7}),
        "train.epochs: every line of the program has its own length",
    ),
    (spec({"sources": "t, u", "c": "median"}), "consensus.c.rule: median of 2 sources is their mean"),
    (
        connected("mutual: {peers: [a, b, s], consensus: {rule: median, include_self: false}}"),
        "median of 2 sources is their mean",
    ),
    (
        apply(spec({}), [f"agents.{one}.train={{clip: 1}}" for one in "tuvs"] + ["train.clip=2"]),
        "train.clip: every agent that would read it has its own",
    ),
    (
        apply(spec(FROZEN), [f"agents.{one}.train={{steps: 9}}" for one in "uvs"] + ["train.epochs=2"]),
        "train.epochs: every agent that would read it has its own",
    ),
    (
        apply(
            spec({}),
            [f"agents.{one}.train={{batch_size: 32, forward_size: 8}}" for one in "tuvs"] + ["train.batch_size=48"],
        ),
        "train.batch_size: every agent that would read it has its own",
    ),
    (
        connected("mutual: {peers: [a, b], consensus: median}"),
        "each reader of c hears the other source only, so that rule 'median' has no effect",
    ),
]


@pytest.mark.parametrize(("given", "said"), TOLD)
def test_what_is_switched_off_or_asked_for_in_vain_is_told(given, said):
    assert [note for note in idle(plan_of(given), registry()) if said in note]


COUNCIL = {"top": ROUNDS % (4, ", until: {patience: 2}", SENT), "into": ", refresh: round"}
ACTING = [
    spec({}),
    spec({"out": ", weight: {start: 0, end: 1, epochs: 3}"}),
    spec({"out": ", weight: {start: 1, end: 0, epochs: 3}"}),
    spec({"c": "{trimmed_mean: {trim: 0.34}}"}),
    spec({"c": "{threshold_vote: {votes: 2}}"}),
    spec({"sources": "t", "c": "vote"}),
    spec({"c": "{rule: mean, temperature: 4}"}),
    spec({"c": "{rule: mean, space: logits}"}),
    spec({"s": ", view: {augment: [shift, {noise: {std: 0.1}}]}"}),
    spec({"settings": "t2_scale: false, temperature: 2"}),
    spec({"out": ", gate: {confident: {start: 0.5, end: 0.5}}"}),
    spec({**FROZEN, "flow": "  - {from: t, to: s, refresh: step, objective: kl}"}),
    {key: value for key, value in spec(COUNCIL).items() if key != "train"},
    connected("mutual: {peers: [a, b, s], order: sequential}"),
    connected("mutual: {peers: [a, b, s], consensus: {rule: median, include_self: true}}"),
    spec({"c": "median"}),
    apply(spec({}), [f"agents.{one}.train={{clip: 1}}" for one in "tuv"] + ["train.clip=2"]),
    apply(spec({}), [f"agents.{one}.train={{batch_size: 32}}" for one in "tuvs"] + ["train.batch_size=48"]),
    connected("chain: {agents: [a, b, s], dense: true}"),
    connected("chain: {agents: [a, s], dense: true, generations: 2}"),
    connected("rounds: {students: [a, b], include_self: false}"),
    connected("rounds: {students: [a, b], labels: 0.5, local_epochs: 3}"),
]


@pytest.mark.parametrize("given", ACTING)
def test_nothing_is_said_of_what_acts(given):
    assert idle(plan_of(given), registry()) == [] and untaught(plan_of(given)) == []


def test_an_ablation_by_weight_runs_and_is_told_also_where_nothing_is_left(mesh: Any) -> None:
    """`--set flows.1.weight=0`, as a sweep over it: what is left trains, and the notes say what does not."""
    given = spec({"flow": "  - {from: t, to: s, weight: 1, objective: kl}"})
    for value, told in ((1, 0), (0, 1)):
        plan = plan_of(apply(given, [f"flows.3.weight={value}"]))
        assert sum("is 0, so it adds no loss" in note for note in idle(plan, registry())) == told
        assert untaught(plan) == []
    made = mesh(["t", "s"], train={"epochs": 1})
    made.flow("labels", "t", objective="ce")
    made.flow("t", "s", objective="kl", weight=0)
    summary = made.run(backend="inline").summary
    assert "nothing teaches s: every flow to it has weight 0" in summary["notes"]


def found(given):
    return examine(make_plan(parse(given), registry()))


def data_mesh(**fields):
    given = {"data": {"dataset": "digits", "train": 100}, "agents": {"s": {"model": "mlp"}}, "train": {"epochs": 1}}
    return {**given, "flows": [{"from": "labels", "to": "s", "objective": "ce"}], **fields}


def streams(**fields):
    flow = {"from": "labels", "to": "s", "objective": "ce", "stream": "x"}
    return data_mesh(streams={"x": fields}, flows=[flow])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            data_mesh(data={"dataset": "digits", "transfer": 100}),
            "data.transfer: no flow is on this split, so that its",
        ),
        (streams(size=1.0), "streams.x.size: it keeps all 100 samples of 'train'"),
        (streams(only=list(range(10))), "streams.x.only: it keeps all 100 samples"),
        (streams(shards={"of": ["s"]}), "streams.x.shards: s alone owns all 100 samples"),
        (
            {**data_mesh(data={"dataset": "diabetes", "stratify": True}, task="regression"), "flows": []}
            | {"flows": [{"from": "labels", "to": "s", "objective": "mse"}]},
            "data.stratify has no effect",
        ),
    ],
)
def test_what_the_data_leave_without_effect_is_told(given, said):
    assert [note for note in found(given).notes if said in note]


def two(*flows: Any, program: Any = (), **train: Any) -> Any:
    """A teacher and a student, with flows between them; an epoch has 4 batches."""
    agents = {"s": {"model": "mlp"}, "t": {"model": "mlp"}}
    labels = {"from": "labels", "to": ["s", "t"], "objective": "ce"}
    given = data_mesh(agents=agents, program=list(program), train={"batch_size": 32, "epochs": 3, **train})
    return {**given, "flows": [labels, *({"from": "t", "to": "s", "objective": "kl", **flow} for flow in flows)]}


def ramp(epochs: int, **more: Any) -> Any:
    return {"weight": {"start": 0, "end": 1, "epochs": epochs}, "refresh": "step", **more}


LESSONS = [{"of": ["s", "t"], "repeat": 2, "do": [{"lesson": "one", "epochs": 3}, {"lesson": "two", "steps": 5}]}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (two(ramp(4)), "t -> s takes 4 epochs, and it is active in 3: it ends at 0.6667, not at 1"),
        (two(ramp(5), steps=13, epochs=1), "takes 5 epochs, and it is active in 4: it ends at 0.75, not at 1"),
        (two(ramp(7, lesson="one"), program=LESSONS), "takes 7 epochs, and it is active in 6"),
        (two(ramp(4, lesson="two"), program=LESSONS), "takes 4 epochs, and it is active in 3"),
        (two({"signal": {"top_k": {"k": 10}}}), "flows.1.signal: `k: 10` of top_k, t -> s: all 10 outputs cross"),
    ],
)
def test_what_lessons_and_models_leave_without_effect_is_told(given, said):
    assert [note for note in found(given).notes if said in note]


@pytest.mark.parametrize(
    "given",
    [
        two(ramp(3)),
        two(ramp(1)),
        two(ramp(4), steps=13, epochs=1),
        two(ramp(6, lesson="one"), program=LESSONS),
        two(ramp(3, lesson="two"), program=LESSONS),
        two(ramp(7), program=[{"of": ["s", "t"], "repeat": 7, "do": [{"train": ["s", "t"], "epochs": 1}]}]),
        two({"signal": {"top_k": {"k": 9}}}),
    ],
)
def test_ramps_that_end_and_signals_that_leave_out_are_not_told_of(given):
    assert not [note for note in found(given).notes if "ramp of t" in note or "top_k" in note]


def test_a_ramp_ends_where_the_note_says(mesh: Any) -> None:
    made = mesh(["s", "t"], train={"epochs": 1, "batch_size": 32}, program=[])
    made._fields["program"] = [{"of": ["s", "t"], "repeat": 3, "do": [{"train": ["s", "t"], "steps": 4}]}]
    made.flow("labels", ["s", "t"], objective="ce")
    made.flow("t", "s", objective="kl", refresh="step", weight={"start": 0, "end": 1, "epochs": 9})
    weights: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        inner = Ramp.at
        patch.setattr(Ramp, "at", lambda self, epoch: weights.append(inner(self, epoch)) or weights[-1])
        made.run(backend="inline")
        (told,) = [note for note in examine(made.plan(), made._modules, made.table).notes if "the ramp of" in note]
    del weights[-1]  # of the note itself
    assert f"it is active in 4: it ends at {max(weights):.4g}, not at 1" in told  # 12 steps, 3 an epoch


@pytest.mark.parametrize(
    "given",
    [data_mesh(), streams(size=0.5), streams(only=[0, 1]), data_mesh(data={"dataset": "digits", "stratify": False})],
)
def test_what_the_data_have_a_use_for_is_not(given):
    assert not [note for note in found(given).notes if "effect" in note or "no flow" in note]


def test_labels_that_are_hidden_twice_and_buffers_that_are_not_there_are_told():
    given = data_mesh(
        data={"dataset": "digits", "transfer": 100},
        streams={"x": {"of": "transfer", "labels": False}},
        agents={"s": {"model": "mlp"}, "e": {"model": "mlp", "update": {"ema": {"of": "s", "buffers": "ema"}}}},
    )
    given["flows"].append({"from": "e", "to": "s", "objective": "kl", "stream": "x"})
    told = found(given).notes
    assert [note for note in told if "streams.x.labels: 'transfer' has no labels that could be hidden" in note]
    assert [note for note in told if "agents.e.update.ema: `buffers: ema` has no effect" in note]


def test_stratify_is_refused_where_there_are_no_classes():
    given = data_mesh(data={"dataset": "diabetes", "stratify": False}, task="regression")
    given["flows"] = [{"from": "labels", "to": "s", "objective": "mse"}]
    with pytest.raises(MeshError, match="these data have none") as refused:
        found(given)
    assert refused.value.where == "data.stratify"
    del given["data"]["stratify"]
    whole = make_plan(parse(given), registry()).resolved().model_dump(mode="json", by_alias=True, exclude_none=True)
    assert not [note for note in found(whole).notes if "stratify" in note]  # every default written out says nothing


def test_what_is_asked_of_a_cluster_is_told_in_a_run_without_one():
    given = data_mesh(placement={"h": {"agents": ["s"], "cpus": 2}})
    given["agents"]["s"] |= {"on_loss": "stop"}
    heard: list[Any] = []
    run_once(Request(parse(given), "inline", listeners=(heard.append,)))
    told = [event.text for event in heard if isinstance(event, Note) and "in this process" in event.text]
    assert told == [
        "placement.h.cpus has no effect in this process: it is for --backend ray",
        "agents.s.on_loss has no effect in this process: it is for --backend ray",
    ]
    assert unused_inline(make_plan(parse(data_mesh(placement={"h": ["s"]})), registry())) == []


@pytest.mark.parametrize(
    "hidden", [{"hidden": [], "dropout": 0.5}, {"hidden": [], "activation": "gelu"}], ids=["dropout", "activation"]
)
@pytest.mark.parametrize("model", ["cross_encoder", "bi_encoder"])
def test_encoders_without_hidden_layers_have_no_settings_of_them(model, hidden):
    with pytest.raises(MeshError, match="`hidden` has none"):
        make_plan(parse(data_mesh(agents={"s": {"model": {model: hidden}}})), registry())


BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
GPT = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 64}


def texts(folder, task, config, *names, text=None, **settings):
    path = folder / "texts.jsonl"
    lines = [{"text": f"some text {n}", "label": n % 2} for n in range(40)]
    path.write_text("\n".join(map(json.dumps, lines)))
    data = {"text": {"path": str(path), **({"label": "label"} if task == "classification" else {})}}
    hf = {"config": dict(config), "tokenizer": {"characters": {}}, **settings}
    flows = [{"from": "labels", "to": list(names), "objective": "ce"}]
    flows += [{"from": names[0], "to": names[1], "objective": "kl"}] if len(names) > 1 else []
    agents = {name: {"model": {"hf": hf}} for name in names}
    text = {"max_length": 16, **(text or {})}
    train = {"epochs": 1, "batch_size": 8}
    return {"task": task, "data": {"dataset": data}, "text": text, "agents": agents, "flows": flows, "train": train}


def test_a_prefix_of_vocabularies_needs_two_models_of_unlike_ones(tmp_path):
    prefix = {"vocabulary": "prefix"}
    with pytest.raises(MeshError, match="no flow compares the outputs of two models") as refused:
        plan_of(texts(tmp_path, "language_modelling", GPT, "s", text=prefix))
    assert refused.value.where == "text.vocabulary"
    given = texts(tmp_path, "language_modelling", GPT, "t", "s", text=prefix)
    assert [note for note in found(given).notes if note.startswith("text.vocabulary: all models have")]
    alone = controls.alone(make_plan(parse(given), registry()), "s", 3)
    plan_of(alone.model_dump(mode="json", by_alias=True))  # a control is not refused for what its mesh needs


@pytest.mark.parametrize("budget", [{"epochs": 3}, {"steps": 7}])
def test_a_control_is_not_told_that_its_mesh_s_budget_is_not_its_own(budget):
    given = {
        "data": {"dataset": "digits"},
        "agents": {"t": {"model": "mlp"}, "s": {"model": "mlp"}},
        "connect": [{"ensemble": {"teachers": "t", "student": "s"}}],
        "train": budget,
    }
    assert not [note for note in found(given).notes if "has no effect" in note]
    alone = controls.alone(make_plan(parse(given), registry()), "s", 5).model_dump(mode="json", by_alias=True)
    assert alone["agents"]["s"]["train"]["steps"] == 5
    assert not [note for note in found(alone).notes if "has no effect" in note]


def test_limits_that_others_undercut_are_told(tmp_path):
    own = found(texts(tmp_path, "classification", BERT, "s", max_length=8)).notes
    assert [note for note in own if note.startswith("text.max_length: every agent's model has")]
    wide = found(texts(tmp_path, "classification", BERT, "s", max_length=32)).notes
    assert [note for note in wide if "its own max_length has no effect" in note]


def test_checkpointing_is_for_weights_that_learn(tmp_path):
    given = texts(tmp_path, "classification", BERT, "t", "s", gradient_checkpointing=True)
    plan_of(given)
    given["agents"]["t"]["update"] = "frozen"
    given["flows"][0]["to"] = ["s"]
    with pytest.raises(MeshError, match="no gradient passes") as refused:
        plan_of(given)
    assert refused.value.where == "agents.t.model.hf.gradient_checkpointing"


def test_a_folder_has_no_revision(tmp_path):
    from kdmesh.text.source import read_config

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert read_config(str(tmp_path / "model"), None, False, {}).model_type == "bert"
    given = texts(tmp_path, "classification", {}, "s", path=str(tmp_path / "model"), revision="main")
    with pytest.raises(MeshError, match="has one revision") as refused:
        found(given)
    assert refused.value.where == "agents.s.model.hf.revision"


def test_controls_have_the_plain_rule_where_theirs_would_do_nothing(tmp_path):
    """With the best teacher alone a mesh's rule has one source: that is no reason to refuse the control."""
    for rule in ("median", {"trimmed_mean": {"trim": 0.34}}, {"weighted": {"weights": [1, 2, 3]}}):
        given = spec({}) | {"consensus": {"c": rule}}
        made = controls.from_best(plan_of(given), "s", "t", tmp_path)
        assert made is not None
        assert plan_of(made.model_dump(mode="json", by_alias=True)).consensus["c"].rule.name == "mean"
