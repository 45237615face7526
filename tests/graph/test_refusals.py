"""What structure alone can tell is wrong is refused, with the place and what to write instead."""

from __future__ import annotations

import pytest

from kdmesh.errors import MeshError

LABELS = {"from": "labels", "to": ["a", "b"], "objective": "ce"}
PEERS = [LABELS, {"from": "a", "to": "b", "objective": "kl", "refresh": "step"}]
DATA = {"dataset": "digits"}


def kl(source, target, **more):
    return {"from": source, "to": target, "objective": "kl", **more}


def mesh(*flows, agents=None, **more):
    return {"agents": agents or {"a": {}, "b": {}}, "flows": list(flows), **more}


def feeds(*readers, **consensus):
    """Both agents feed consensus c."""
    return mesh({"from": ["a", "b"], "to": "c"}, *readers, consensus={"c": {"rule": "mean", **consensus}})


REFUSED = {
    "unknown agent": (mesh(kl("x", "a")), "unknown agent or consensus 'x'", "flows.0.from", "a, b, labels"),
    "unknown target": (
        mesh(LABELS, kl("a", "bb")),
        "unknown agent or consensus 'bb'",
        "flows.1.to",
        "did you mean 'b'",
    ),
    "unknown objective": (
        mesh({"from": "a", "to": "b", "objective": "reversekl"}),
        "unknown objective 'reversekl'",
        "flows.0.objective",
        "did you mean 'reverse_kl'",
    ),
    "an objective's setting": (
        mesh({"from": "a", "to": "b", "objective": {"kl": {"temprature": 4}}}),
        "unknown field",
        "flows.0.objective.kl.temprature",
        "did you mean 'temperature'",
    ),
    "unknown rule": (feeds(kl("c", "a"), rule="meen"), "unknown consensus rule 'meen'", "consensus.c.rule", "'mean'"),
    "unknown strategy": (
        {"agents": {"a": {}}, "connect": [{"ensembel": {}}]},
        "unknown strategy 'ensembel'",
        "connect.0",
        "did you mean 'ensemble'",
    ),
    "unknown model": (
        mesh(agents={"a": {"model": "mpl"}}),
        "unknown model 'mpl'",
        "agents.a.model",
        "did you mean 'mlp'",
    ),
    "unknown stream": (
        mesh(kl("a", "b", stream="trian"), data=DATA),
        "unknown stream 'trian'",
        "flows.0.stream",
        "did you mean 'train'",
    ),
    "a stream of an unknown one": (
        mesh(LABELS, streams={"own": {"of": "x"}}),
        "unknown stream 'x'",
        "streams.own.of",
        "transfer",
    ),
    "streams in a circle": (
        mesh(LABELS, streams={"one": {"of": "two"}, "two": {"of": "one"}}),
        "streams are derived from each other in a cycle: one -> two -> one",
        "streams.one.of",
        "train",
    ),
    "the rest of an unknown stream": (
        mesh(LABELS, streams={"few": {"size": 9}, "rest": {"rest_of": "fwe"}}),
        "unknown stream 'fwe'",
        "streams.rest.rest_of",
        "did you mean 'few'",
    ),
    "rests in a circle": (
        mesh(LABELS, streams={"one": {"rest_of": "two"}, "two": {"rest_of": "one"}}),
        "streams are derived from each other in a cycle: one -> two -> one",
        "streams.one.rest_of",
        "train",
    ),
    "the rest of a stream of another split": (
        mesh(LABELS, streams={"few": {"of": "transfer", "size": 9}, "rest": {"rest_of": "few"}}),
        "few is taken from transfer, and not from train, so it has no rest there",
        "streams.rest.rest_of",
        "of: transfer",
    ),
    "the rest of a split": (
        mesh(LABELS, streams={"rest": {"rest_of": "test"}}),
        "test is a whole split, so it has no rest there",
        "streams.rest.rest_of",
        "streams that are taken from one",
    ),
    "a stream named like a split": (
        mesh(LABELS, streams={"train": {}}),
        "'train' is a split",
        "streams.train",
        "another name",
    ),
    "shards of an unknown agent": (
        mesh(LABELS, streams={"own": {"shards": {"of": ["x"]}}}),
        "unknown agent 'x'",
        "streams.own.shards.of",
        "a, b",
    ),
    "an empty transfer split": (
        mesh(kl("a", "b", stream="transfer"), data=DATA),
        "this mesh uses the transfer split, which is empty",
        "data.transfer",
        "transfer: 0.3",
    ),
    "test data": (
        mesh(kl("a", "b", stream="test")),
        "the test split cannot be used for training",
        "flows.0.stream",
        "train",
    ),
    "test data by another name": (
        mesh(kl("a", "b", stream="more"), streams={"some": {"of": "test"}, "more": {"of": "some"}}),
        "the test split cannot be used for training",
        "flows.0.stream",
        "train",
    ),
    "labels where there are none": (
        mesh({**LABELS, "stream": "dark"}, streams={"dark": {"labels": False}}),
        "stream 'dark' has no labels to learn from",
        "flows.0.stream",
        "a labelled stream",
    ),
    "labels of generated samples that have none": (
        mesh({**LABELS, "stream": "made"}, streams={"made": {"generated_by": "a", "labels": False}}),
        "stream 'made' has no labels to learn from",
        "flows.0.stream",
        "a labelled stream",
    ),
    "labels into a consensus": (
        mesh({"from": "labels", "to": "c"}, consensus={"c": "mean"}),
        "labels do not flow into a consensus",
        "flows.0.from",
        "to each agent",
    ),
    "an objective that reads no labels": (
        mesh({**LABELS, "objective": "mse"}),
        "objective 'mse' does not read labels",
        "flows.0.objective",
        "ce",
    ),
    "an objective that reads no probabilities": (
        feeds({"from": "c", "to": "a", "objective": "mse"}, space="probs"),
        "objective 'mse' does not read probs",
        "flows.1",
        "space: logits",
    ),
    "label spaces": (
        mesh(LABELS, kl("b", "a"), agents={"a": {"labels": [0, 1]}, "b": {}}),
        "label spaces differ: b knows all classes, a classes [0, 1]",
        "flows.1",
        "the same `labels`",
    ),
    "label spaces that overlap": (
        mesh(LABELS, kl("a", "b"), agents={"a": {"labels": [0, 1]}, "b": {"labels": [1, 2]}}),
        "label spaces differ: a knows classes [0, 1], b classes [1, 2]",
        "flows.1",
        "a reader that knows more",
    ),
    "label spaces through a consensus": (
        {
            **feeds(kl("c", "d")),
            "agents": {"a": {"labels": [0, 1]}, "b": {"labels": [0, 1]}, "d": {"labels": [1, 2]}},
        },
        "label spaces differ: c knows classes [0, 1], d classes [1, 2]",
        "flows.1",
        "the same `labels`",
    ),
    "label spaces within a consensus": (
        {
            **feeds(kl("c", "d")),
            "agents": {"a": {"labels": [0, 1]}, "b": {"labels": [1, 2]}, "d": {}},
        },
        "label spaces differ: b knows classes [1, 2], c classes [0, 1]",
        "flows.0",
        "(concat, uhc)",
    ),
    "classes that repeat": (
        mesh(LABELS, agents={"a": {"labels": [0, 0]}, "b": {}}),
        "`labels` of a is empty, or names a class twice: [0, 0]",
        "agents.a.labels",
        "one class for each output",
    ),
    "spans of no text": (
        mesh(LABELS, {"from": "a", "to": "b", "objective": "uld"}),
        "objective 'uld' compares spans of text, and this mesh models no text",
        "flows.1.objective",
        "task: language_modelling",
    ),
    "layers of outputs": (
        mesh(LABELS, kl("a", "b", tap=["layers.0", "layers.1"])),
        "a list of layers, on a flow that carries and compares outputs",
        "flows.1.tap",
        "an objective that reads layers",
    ),
    "a route to nobody": (
        feeds(kl("c", "a"), rule={"route": {"column": "domain", "to": {"law": "bb"}}}),
        "'bb' does not flow into consensus 'c'",
        "consensus.c.rule.route.to.law",
        "did you mean 'b'",
    ),
    "nothing teaches": (
        mesh(kl("a", "b"), agents={"a": {}, "b": {}, "idle": {}}),
        "nothing teaches this agent and no label trains it",
        "agents.idle",
        "from: labels, to: idle",
    ),
    "once inside a stage": (
        mesh(kl("a", "b", refresh="once"), kl("b", "a", refresh="step")),
        "once inside a stage: a -> b",
        "flows.0.refresh",
        "step, epoch or round",
    ),
    "once inside a stage, through a consensus": (
        mesh(
            {"from": "a", "to": "c", "refresh": "once"},
            kl("c", "b"),
            kl("b", "a"),
            kl("a", "b"),
            consensus={"c": "mean"},
        ),
        "once inside a stage: a -> b",
        "flows.0.refresh",
        "step, epoch or round",
    ),
    "stages in a circle": (
        mesh(kl("a", "b", refresh="once"), kl("b", "a", refresh="once")),
        "stages wait for each other in a cycle: a -> b -> a",
        "flows",
        "other than `once`",
    ),
    "temperatures": (
        feeds(*({"from": "c", "to": x, "objective": {"kl": {"temperature": t}}} for x, t in (("a", 2), ("b", 4)))),
        "readers of one consensus want different temperatures: 2, 4",
        "consensus.c",
        "one temperature",
    ),
    "a temperature of its own": (
        feeds(kl("c", "a"), temperature=4),
        "readers of one consensus want different temperatures",
        "consensus.c",
        "one temperature",
    ),
    "a space": (
        feeds(kl("c", "a"), space="gradient"),
        "rule 'mean' does not work in space 'gradient'",
        "consensus.c.space",
        "probs, logits, loss",
    ),
    "a rule that needs labels": (
        mesh(
            {"from": ["a", "b"], "to": "c", "stream": "transfer"}, kl("c", "a"), consensus={"c": {"rule": "confidence"}}
        ),
        "rule 'confidence' needs labels, and stream 'transfer' has none",
        "consensus.c.rule",
        "without labels",
    ),
    "an empty consensus": (
        mesh(LABELS, kl("c", "a"), consensus={"c": "mean"}),
        "nothing flows into this consensus",
        "consensus.c",
        "to: c",
    ),
    "two streams into a consensus": (
        mesh({"from": "a", "to": "c"}, {"from": "b", "to": "c", "stream": "transfer"}, consensus={"c": "mean"}),
        "consensus 'c' has flows on stream 'transfer' here and on 'train' elsewhere",
        "flows.1.stream",
        "one stream",
    ),
    "two streams, through another consensus": (
        mesh(
            {"from": "a", "to": "c"},
            {"from": "b", "to": "d", "stream": "transfer"},
            {"from": "c", "to": "d"},
            consensus={"c": "mean", "d": "mean"},
        ),
        "consensus 'd' has flows on stream 'train' here and on 'transfer' elsewhere",
        "flows.2.stream",
        "one stream",
    ),
    "stale on a consensus": (
        feeds(kl("c", "a", refresh="round", stale="recorded")),
        "`stale` stands on flows that leave an agent, not on c",
        "flows.1",
        "into the consensus",
    ),
    "refresh of labels": (
        mesh({**LABELS, "refresh": "once"}),
        "`refresh` stands on flows that leave an agent, not on labels",
        "flows.0",
        "leave it out",
    ),
    "an objective into a consensus": (
        mesh(kl("a", "c"), consensus={"c": "mean"}),
        "a flow into a consensus has no objective",
        "flows.0",
        "leave `objective` out",
    ),
    "no objective": (
        mesh({"from": "a", "to": "b"}),
        "the flow a -> b needs an objective",
        "flows.0",
        "objective: kl",
    ),
    "batch sizes": (
        mesh(*PEERS, agents={"a": {}, "b": {"train": {"batch_size": 32}}}),
        "a and b train together but differ in batch_size or drop_last: (64, False), (32, False)",
        "agents.b.train.batch_size",
        "the same",
    ),
    "a lesson without flows": (
        mesh(
            {**LABELS, "lesson": "own"},
            program=[{"of": x, "do": [{"lesson": "own"}, {"lesson": "digest"}]} for x in "ab"],
        ),
        "no flow is active in lesson 'digest' of the stage of 'a'",
        "program",
        "lesson: digest",
    ),
    "unknown lesson": (
        mesh(*PEERS, kl("b", "a", lesson="onw"), program=[{"of": "a", "do": [{"lesson": "own"}]}]),
        "unknown lesson 'onw'",
        "flows.2.lesson",
        "did you mean 'own'",
    ),
    "a lesson of no program": (mesh({**LABELS, "lesson": "own"}), "unknown lesson 'own'", "flows.0.lesson", "main"),
    "a program of two stages": (
        mesh(LABELS, program=[{"of": ["a", "b"], "do": [{"lesson": "main"}]}]),
        "a program is for one stage, but a, b do not train together",
        "program.0.of",
        "one program for each stage",
    ),
    "a program of nobody": (
        mesh(LABELS, program=[{"lesson": "main"}]),
        "a program names its agents",
        "program.0",
        "of: [agents]",
    ),
    "a program of an unknown agent": (
        mesh(LABELS, program=[{"of": "x", "lesson": "main"}]),
        "unknown agent 'x'",
        "program.0.of",
        "a, b",
    ),
    "publishing to an unknown consensus": (
        mesh(LABELS, program=[{"of": "a", "do": [{"publish": "a", "to": "x"}]}]),
        "unknown consensus 'x'",
        "program.0.do.0.to",
        "a consensus node",
    ),
    "weights of an unknown agent": (
        mesh(LABELS, agents={"a": {}, "b": {"weights_of": "x"}}),
        "unknown agent 'x'",
        "agents.b.weights_of",
        "an agent of this mesh",
    ),
    "weights in a circle": (
        mesh(LABELS, agents={"a": {"weights_of": "b"}, "b": {"weights_of": "a"}}),
        "weights are shared in a cycle: a -> b -> a",
        "agents.b.weights_of",
        "",
    ),
    "a model beside shared weights": (
        mesh(LABELS, agents={"a": {}, "b": {"weights_of": "a", "model": "mlp"}}),
        "an agent that shares weights has no model of its own",
        "agents.b.model",
        "leave `model`",
    ),
    "an update beside shared weights": (
        mesh(LABELS, agents={"a": {}, "b": {"weights_of": "a", "update": "frozen"}}),
        "an agent that shares weights has no update of its own",
        "agents.b.update",
        "owner, a",
    ),
    "a follower of frozen weights": (
        mesh(LABELS, agents={"a": {"update": "frozen"}, "b": {"update": {"ema": {"of": "a"}}}}),
        "b follows a, which is frozen",
        "agents.b.update.ema.of",
        "trains by gradient",
    ),
    "followers in a circle": (
        mesh(agents={x: {"update": {"ema": {"of": y}}} for x, y in (("a", "b"), ("b", "a"))}),
        "weights follow each other in a cycle: a -> b -> a",
        "agents.b.update.ema.of",
        "trains by gradient",
    ),
    "a follower of nobody": (
        mesh(LABELS, agents={"a": {}, "b": {"update": {"ema": {"of": "x"}}}}),
        "unknown agent 'x'",
        "agents.b.update.ema.of",
        "agents: a",
    ),
    "a follower of itself": (
        mesh(LABELS, agents={"a": {}, "b": {"update": {"ema": {"of": "b"}}}}),
        "an agent cannot refer to itself",
        "agents.b.update.ema.of",
        "agents: a",
    ),
}


@pytest.mark.parametrize(("bad", "what", "where", "instead"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_structure_is_refused_with_its_place_and_what_to_write(plan, bad, what, where, instead):
    with pytest.raises(MeshError) as caught:
        plan(bad)
    error = caught.value
    assert (error.what[: len(what)], error.where) == (what, where)
    assert instead in error.instead and (error.instead or not instead)
