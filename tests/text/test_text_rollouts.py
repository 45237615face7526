"""Texts that agents of a mesh write: equal bits on one host and several, on Ray, broken off and resumed; refusals."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from few_texts import topology
from text_meshes import bert, gpt, llama, modelled

from kdmesh.backends import Session
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine import teach
from kdmesh.engine.check import examine
from kdmesh.engine.controls import alone, from_best
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.hosts.rollouts import Schedule
from kdmesh.plugins import registry
from kdmesh.spec.read import parse, read_mesh
from kdmesh.streams.stream import Stream

SUMS = {"dataset": {"sums": {"below": 8}}, "train": 24}
SETTINGS = {"epochs": 2, "batch_size": 5, "optimizer": {"adamw": {"lr": 3e-3}}}


def mesh(**stream: Any) -> dict[str, Any]:
    """Two students, each taught on what it writes or on what the first one writes, and a frozen teacher."""
    stream = {"generated_by": "s", "prompts": "train", "sampling": {"max_new_tokens": 4}, **stream}
    flow = {"stream": "rollouts", "objective": "reverse_kl"}
    return {
        "task": "language_modelling",
        "data": SUMS,
        "agents": {
            "t": {"model": llama(16, vocabulary=None), "update": "frozen"},
            "s": {"model": llama(8, vocabulary=None)},
            "u": {"model": llama(8, 2, vocabulary=None)},
        },
        "streams": {"rollouts": stream},
        "flows": [{"from": "t", "to": ["s", "u"], **flow}, {"from": "s", "to": "u", **flow, "refresh": "step"}],
        "train": SETTINGS,
        "placement": "together",
    }


def sequence(**stream: Any) -> dict[str, Any]:
    """A teacher that learns first, and a student that learns the texts that it then writes, once, twice each."""
    sampling = {"max_new_tokens": 4, "samples": 2}
    stream = {"generated_by": "t", "prompts": "train", "refresh": "once", "sampling": sampling, **stream}
    return {
        **mesh(),
        "agents": {"t": {"model": llama(16, vocabulary=None)}, "s": {"model": gpt(8, vocabulary=None)}},
        "streams": {"rollouts": stream},
        "flows": [
            {"from": "labels", "to": "t", "objective": "ce"},
            {"from": "labels", "to": "s", "objective": "ce", "stream": "rollouts"},
            {"from": "t", "to": "s", "objective": "kl", "stream": "rollouts"},
        ],
    }


HINT = "{{ text }} answers {{ prompt }}"


def privileged(**stream: Any) -> dict[str, Any]:
    """A student that is taught by itself and by a teacher that learned first, both told the answer."""
    fields = mesh(**stream)
    agents = {"t": {"model": llama(16, vocabulary=None)}, "s": {"model": llama(8, vocabulary=None)}}
    agents |= {
        "h": {"weights_of": "s", "view": {"prompt": HINT}},
        "v": {"weights_of": "t", "view": {"prompt": HINT}},
    }
    flow = {"to": "s", "stream": "rollouts", "objective": "jsd"}
    flows = [{"from": "labels", "to": "t", "objective": "ce"}, {"from": "h", **flow}, {"from": "v", **flow}]
    return {**fields, "agents": agents, "flows": flows}


def given() -> dict[str, Any]:
    """A student that learns the data's answers told them, and without from itself, a frozen and a learning teacher."""
    fields = privileged(mix={"of": "train", "share": 0.5})
    agents = {**fields["agents"], "f": {"model": llama(8, vocabulary=None), "update": "frozen"}}
    agents["g"] = {"weights_of": "f", "view": {"prompt": HINT}}
    flows = [
        *fields["flows"],
        {"from": "labels", "to": "h", "objective": "ce"},
        {"from": ["g", "v"], "to": "s", "objective": "kl"},
        {"from": "g", "to": "s", "objective": "kl", "refresh": "step"},
    ]
    return {**fields, "agents": agents, "flows": flows}


def revised(each: str = "step", **first: Any) -> dict[str, Any]:
    """A student that reads what two others have written, one of them after the other, and answers anew."""
    stream = {"prompts": "train", "refresh": each, "sampling": {"max_new_tokens": 3}}
    streams = {
        "rollouts": {**stream, "generated_by": "u", "reads": {"a": "first", "b": "second"},
                     "template": "{{ a.text }};{{ b.text }};{{ prompt }}"},
        "second": {**stream, "generated_by": "t", "reads": {"a": "first"}, "template": "{{ a.text }}-{{ prompt }}"},
        "first": {**stream, "generated_by": "s", **first},
    }  # fmt: skip
    return {**mesh(), "streams": streams}


def gathered() -> dict[str, Any]:
    """A teacher that learns first, writes two texts to each prompt, and reads both to write once more."""
    fields = sequence()
    streams = {
        "drafts": fields["streams"]["rollouts"],
        "rollouts": {**fields["streams"]["rollouts"], "sampling": {"max_new_tokens": 4}, "reads": {"a": "drafts"},
                     "template": "{% for one in a.texts %}{{ one }};{% endfor %}{{ prompt }}"},
    }  # fmt: skip
    return {**fields, "streams": streams}


def agreed(each: str = "step") -> dict[str, Any]:
    """A student that learns what a vote chooses of what it and a teacher write, and a judge of the two."""
    fields, stream = mesh(), {"prompts": "train", "refresh": each, "sampling": {"max_new_tokens": 3}}
    streams = {
        "first": {**stream, "generated_by": "u"},
        "second": {**stream, "generated_by": "t"},
        "verdicts": {**stream, "generated_by": "s", "reads": {"a": "first", "b": "second"},
                     "template": "{{ a.text }}{{ b.text }}{{ prompt }}"},
        "judged": {"consensus_of": ["first", "second"], "reads": {"judge": "verdicts"},
                   "rule": {"best_of": {"verdict": "[0-9]", "names": ["1", "2"]}}},
        "rollouts": {"consensus_of": ["judged", "second", "first"],
                     "rule": {"vote": {"pattern": "[0-9]", "ties": "first"}}},
    }  # fmt: skip
    return {**fields, "streams": streams}


def elected() -> dict[str, Any]:
    """Two teachers that learn first, of unlike tokenizers; what most of their texts say, in tokens of the first."""
    fields = sequence()
    agents = {**fields["agents"], "w": {"model": llama(16, vocabulary=270)}}
    one = fields["streams"]["rollouts"]
    streams = {"drafts": one, "others": {**one, "generated_by": "w"},
               "rollouts": {"consensus_of": ["drafts", "others"], "rule": {"vote": {"numeric": True, "ties": "first"}},
                            "keep": ["length"]}}  # fmt: skip
    flows = [*fields["flows"], {"from": "labels", "to": "w", "objective": "ce"}]
    return {**fields, "agents": agents, "streams": streams, "flows": flows}


def parted() -> dict[str, Any]:
    """The same sequence, with reasoning and answers as losses of their own."""
    fields = sequence()
    flows = [{**fields["flows"][0]}, *({**flow, "part": part} for part, flow in
             zip(("reasoning", "answer"), fields["flows"][1:], strict=True))]  # fmt: skip
    data = {"dataset": {"sums": {"below": 8, "explained": True}}, "train": 24}
    return {**fields, "data": data, "flows": flows, "text": {"reasoning": ["", ">"]}}


def once(name: str) -> dict[str, Any]:
    """A bundled topology, of few prompts, for one epoch."""
    fields = topology(name).dump()
    return {**fields, "train": {**fields["train"], "epochs": 1}}


MESHES = {
    "a vote after a judge": agreed(),
    "a vote after a judge, two steps at once": agreed("2 steps"),
    "a vote of unlike tokenizers, once": elected(),
    "reads what others write": revised(),
    "reads, two steps at once": revised("2 steps"),
    "reads all drafts": gathered(),
    "told the answer": privileged(),
    "told the answer of given texts": given(),
    "each step": mesh(),
    "several steps": mesh(refresh="3 steps"),
    "an epoch": mesh(refresh="epoch", sampling={"max_new_tokens": 3, "greedy": True}),
    "once": sequence(),
    "accumulated": {**mesh(sampling={"max_new_tokens": 3, "samples": 2}), "train": {**SETTINGS, "accumulate": 2}},
    "mixed": mesh(refresh="2 steps", mix={"of": "train", "share": 0.5}),
    "a round": {
        **mesh(refresh="round"),
        "program": [{"of": ["s", "u"], "repeat": 2, "do": [{"train": ["s", "u"], "steps": 7}]}],
    },
    "packed": {**mesh(), "text": {"pack": True}},
    "reasoning and answer apart": parted(),
    "a rationale": once("rationale"),
    "explained to itself": once("star"),
    "pairs of what is written": mesh(
        refresh="2 steps", sampling={"max_new_tokens": 3, "samples": 5}, pairs={"pattern": {"match": "[0-4]"}}
    ),
}


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many steps of all stages were begun, and before which to break off; there is a checkpoint after every chunk.

    It is the same number wherever agents are.
    """
    monkeypatch.setattr(teach, "SECONDS", 0.0)
    monkeypatch.setattr(teach, "WINDOW", 2)
    known, inner, begun = {"made": 0, "last": 0}, InlineBackend.call, set[tuple[str, int]]()

    def call(self: Any, host: str, method: str, *args: Any, **options: Any) -> Any:
        if method == "run":
            if not known["made"]:
                begun.clear()
            begun.update((args[0].stage, step) for step, _ in args[0].steps)
            known["made"] = len(begun)
            if known["last"] and known["made"] >= known["last"]:
                raise Killed
        return inner(self, host, method, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", call)
    return known


def outcome(fields: dict[str, Any], placement: str = "together", **more: Any) -> dict[str, Any]:
    """What must not depend on breaks and places."""
    session = more.pop("session", None)
    backend = {} if session is not None else {"backend": "inline"}
    request = Request(parse({**fields, "placement": placement}), checkpoint_seconds=0, **backend, **more)
    summary = run_once(request, session=session)[0]
    return {name: (one["weights_sha256"], one["metrics"]) for name, one in summary["agents"].items()}


def elsewhere(names: Iterable[str]) -> list[Any]:
    """Of each mesh where it runs whole and where it is broken off; the other way round is slow.

    A run that is broken off and resumed elsewhere than the whole one depends, if it is equal, on neither.
    """
    places = ("together", "spread")
    return [
        pytest.param(name, *way, id=f"{name}, broken off {way[1]}", marks=[pytest.mark.slow] * ((at + number) % 2))
        for at, name in enumerate(names)
        for number, way in enumerate((places, places[::-1]))
    ]


def seldom(fast: list[str], *slow: str) -> list[Any]:
    """Names of meshes, of which the last are slow: they prove what the first do."""
    return [*fast, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


@pytest.mark.parametrize(("name", "whole", "broken"), elsewhere(MESHES))
def test_bits_depend_neither_on_hosts_nor_on_breaks(
    name: str, whole: str, broken: str, tmp_path: Path, calls: dict[str, int]
) -> None:
    expected, made = outcome(MESHES[name], whole), calls["made"]
    calls.update(made=0, last=made * 4 // 5 + 1)
    with pytest.raises(KeyboardInterrupt):
        outcome(MESHES[name], broken, out=tmp_path)
    calls.update(made=0, last=0)
    (folder,) = tmp_path.glob("*/*")
    assert outcome(MESHES[name], broken, resume=folder) == expected
    assert 0 < calls["made"] < made


@pytest.mark.ray
@pytest.mark.parametrize(
    "name", seldom(["told the answer of given texts", "a vote after a judge"], "several steps", "once",
                   "reads what others write", "reasoning and answer apart")
)  # fmt: skip
def test_on_ray_they_are_the_same(name: str, ray_session: Session) -> None:
    expected = outcome(MESHES[name])
    assert outcome(MESHES[name], "spread", session=ray_session) == expected


def test_what_is_written_depends_on_how_often(calls: dict[str, int]) -> None:
    found = {refresh: outcome(mesh(refresh=refresh))["s"] for refresh in ("step", "1 steps", "3 steps", "epoch")}
    assert found["step"] == found["1 steps"]
    assert len(set(map(str, found.values()))) == 3


def test_an_epoch_visits_every_prompt_as_often_as_it_is_answered() -> None:
    stream = Stream("rollouts", torch.tensor([3, 5, 8, 9, 12]).repeat_interleave(3), True, draws=3)
    for every in (1, 4, None):
        schedule = Schedule(stream, "train", None, 0, every, 0, 8)
        steps = [schedule.at(step, 4, False)[0] for step in range(8)]
        for epoch in (steps[:4], steps[4:]):
            assert sorted(torch.cat(epoch).tolist()) == list(range(15))
            rows = stream.rows[torch.cat(epoch)].view(5, 3)
            assert (rows == rows[:, :1]).all()  # the draws of a prompt stand together
        assert not torch.equal(torch.cat(steps[:4]), torch.cat(steps[4:]))
    due = Schedule(stream, "train", None, 0, 3, 0, 8).due(3, 4, False)
    assert torch.equal(due, torch.cat(steps[3:6]))
    assert len(Schedule(stream, "train", None, 0, 3, 0, 8).due(6, 4, False)) == 4 + 3  # the phase ends with the epoch


def changed(fields: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {**fields, **parts}


def other(agent: str, **more: Any) -> dict[str, Any]:
    fields = mesh()
    return {**fields, "agents": {**fields["agents"], agent: {**fields["agents"][agent], **more}}}


def reading(refresh: str = "step", first: dict[str, Any] | None = None, **rollouts: Any) -> dict[str, Any]:
    fields = revised(refresh, **(first or {}))
    return {**fields, "streams": {**fields["streams"], "rollouts": {**fields["streams"]["rollouts"], **rollouts}}}


PLAIN: dict[str, Any] = {"stream": "rollouts", "objective": "reverse_kl"}
ALSO = {"from": "t", "to": "s", "objective": "reverse_kl"}
TAUGHT = {"from": "labels", "to": "u", "objective": "ce"}
GROUPED: dict[str, Any] = {**PLAIN, "denominator": {"group": "kind"}}
REFUSED = [
    (
        changed(mesh(), flows=[{"from": "t", "to": ["s", "u"], **GROUPED}]),
        "flows.0.denominator.group",
        "the data have no column 'kind'",
    ),
    (
        changed(mesh(), flows=[{"from": "t", "to": ["s", "u"], **GROUPED}], train={**SETTINGS, "accumulate": 2}),
        "flows.0.denominator",
        "accumulates batches",
    ),
    (
        changed(
            mesh(),
            consensus={"c": "mean"},
            flows=[
                {"from": "t", "to": "c", "stream": "rollouts", "denominator": {"group": "kind"}},
                {"from": "c", "to": ["s", "u"], **PLAIN},
            ],
        ),
        "flows.0.denominator",
        "adds no loss",
    ),
    (mesh(refresh="round"), "streams.rollouts.refresh", "s trains in none"),
    (mesh(refresh="month"), "streams.rollouts.refresh", "not a period of a stream of texts"),
    (mesh(refresh="once"), "streams.rollouts.refresh", "s trains at the same time"),
    (mesh(sampling={"greedy": True, "top_p": 0.5}), "streams.rollouts.sampling.top_p", "has no effect"),
    (mesh(sampling={"greedy": True, "samples": 2}), "streams.rollouts.sampling.samples", "would be the same"),
    (mesh(sampling={"temperature": 0.5, "greedy": True}), "streams.rollouts.sampling.temperature", "has no effect"),
    (mesh(sampling={"top_k": 1}), "streams.rollouts.sampling.top_k", "the likeliest token alone"),
    (mesh(sampling={"stop": [""]}), "streams.rollouts.sampling.stop", "would end every text"),
    (mesh(sampling={"max_new_tokens": 44}), "streams.rollouts.sampling.max_new_tokens", "its prompt has"),
    (mesh(size=5), "streams.rollouts.size", "no meaning on a written stream"),
    (mesh(private=True), "streams.rollouts.private", "no meaning on a written stream"),
    (mesh(of="validation"), "streams.rollouts.of", "`of` has no effect"),
    (other("s", view={"prompt": "{{ prompt "}), "agents.s.view.prompt", "the template cannot be read"),
    (other("s", view={"prompt": "{{ hint }}"}), "agents.s.view.prompt", "'hint' is undefined"),
    (other("s", view={"prompt": "{{ prompt + 1 }}"}), "agents.s.view.prompt", "TypeError"),
    (other("s", view={"prompt": "{{ ''.__class__ }}"}), "agents.s.view.prompt", "the template fails"),
    (other("t", view={"prompt": "{{ text * 40 }}"}), "streams.rollouts.sampling.max_new_tokens", "tokens for t"),
    (
        changed(other("t", view={"prompt": HINT}), flows=[{"from": "labels", "to": ["s", "u"], "objective": "ce"}]),
        "agents.t.view.prompt",
        "t teaches nobody",
    ),
    (
        changed(other("t", view={"prompt": "{{ text * 40 }}"}), flows=[ALSO, TAUGHT]),
        "agents.t.view.prompt",
        "as t is told it, it has",
    ),
    (
        changed(other("t", view={"prompt": "{{ hint }}"}), flows=[ALSO, TAUGHT]),
        "agents.t.view.prompt",
        "'hint' is undefined",
    ),
    (reading(reads={"a": "rollouts", "b": "second"}), "streams.rollouts.reads.a", "in a cycle: rollouts -> rollouts"),
    (
        reading(first={"reads": {"c": "rollouts"}, "template": "{{ c.text }}"}),
        "streams.rollouts.reads.a",
        "in a cycle: rollouts -> first -> rollouts",
    ),
    (reading(reads={"a": "frist", "b": "second"}), "streams.rollouts.reads.a", "unknown stream 'frist'"),
    (reading(reads={"a": "train", "b": "second"}), "streams.rollouts.reads.a", "no agent writes texts on 'train'"),
    (reading(first={"keep": [{"length": {"min": 2}}]}), "streams.first.keep", "filters say what is learned"),
    (reading(template=None), "streams.rollouts.reads", "texts are read where a template names them"),
    (reading(template="{{ a.text }}"), "streams.rollouts.reads.b", "does not name 'b'"),
    (reading(template="{{ a.text }} {{ b.text "), "streams.rollouts.template", "the template cannot be read"),
    (reading(template="{{ a.text }} {{ b.words }}"), "streams.rollouts.template", "has no attribute 'words'"),
    (reading(template="{{ a.texts }} {{ b.text }}"), "streams.rollouts.template", "has no attribute 'texts'"),
    (reading(template="{{ a.text }}{{ b.text }}{{ hint }}"), "streams.rollouts.template", "'hint' is undefined"),
    (reading(reads={"text": "first"}), "streams.rollouts.reads.text", "is the sample's own"),
    (reading(reads={"a b": "first"}), "streams.rollouts.reads.a b", "is no name in a template"),
    (
        reading(template="{{ a.text }}{{ b.text * 15 }}"),
        "streams.rollouts.sampling.max_new_tokens",
        "with all that it may read has",
    ),
    (reading(first={"refresh": "2 steps"}), "streams.rollouts.reads.a", "of other lengths"),
    (
        reading(first={"sampling": {"max_new_tokens": 3, "samples": 2}}),
        "streams.rollouts.reads.a",
        "has 2 texts of a prompt",
    ),
    (reading(first={"mix": {"of": "train", "share": 0.5}}), "streams.rollouts.reads.a", "given texts are mixed into"),
    (
        changed(revised(), streams={**revised()["streams"], "part": {"size": 9},
                                    "first": {**revised()["streams"]["first"], "prompts": "part"}}),
        "streams.rollouts.reads.a",
        "answers the prompts of 'part'",
    ),
    (
        changed(reading(), agents={**mesh()["agents"], "u": {**mesh()["agents"]["u"], "view": {"prompt": HINT}}}),
        "streams.rollouts.template",
        "would stand in its place",
    ),
    (reading(first={"refresh": "once"}), "streams.first.refresh", "s trains at the same time"),
    (mesh(mix={"of": "tran", "share": 0.5}), "streams.rollouts.mix.of", "unknown stream"),
    (mesh(mix={"of": "rollouts", "share": 0.5}), "streams.rollouts.mix.of", "is written by an agent itself"),
    (mesh(mix={"of": "test", "share": 0.5}), "streams.rollouts.mix.of", "cannot be used for training"),
    (mesh(prompts="test"), "streams.rollouts.prompts", "cannot be used for training"),
    (mesh(prompts="rollouts"), "streams.rollouts.prompts", "in a cycle"),
    (mesh(sampling={"samples": 10**9}), "streams.rollouts.sampling.samples", "are more than the 100,000,000"),
    (other("s", view={"prompt": "{% include 'a' %}"}), "agents.s.view.prompt", "the template reads another, a"),
    (mesh(prompts=None), "streams.rollouts.generated_by", "without prompts"),
    (mesh(generated_by=None), "streams.rollouts.prompts", "no agent writes this stream"),
    (
        changed(mesh(), streams={**mesh()["streams"], "more": {"of": "rollouts"}}),
        "streams.more.of",
        "written batch by batch",
    ),
    (
        changed(mesh(), streams={"rollouts": {**mesh()["streams"]["rollouts"], "prompts": "part"},
                                 "part": {"private": True}}),
        "streams.rollouts.prompts",
        "which is private",
    ),
    (other("u", train={"accumulate": 2}), "streams.rollouts.refresh", "u updates after 2 batches"),
    (
        changed(mesh(refresh="epoch"), train={**SETTINGS, "accumulate": 2}),
        "streams.rollouts.refresh",
        "which an epoch might cut apart",
    ),
    (other("t", model=llama(16, vocabulary=270)), "flows.0", "t has another tokenizer or limit than s"),
    (
        changed(mesh(), flows=[{"from": "t", "to": ["s", "u"], **PLAIN, "objective": "uld"}]),
        "flows.0.objective",
        "needs",
    ),
    (
        changed(mesh(), flows=[{"from": "t", "to": ["s", "u"], **PLAIN, "refresh": "epoch"}]),
        "flows.0.refresh",
        "cannot publish",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_cannot_be_written_or_read_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == where and what in caught.value.what and caught.value.instead


def test_prompts_that_ask_nothing_are_refused_by_sample(texts: Path) -> None:
    stream = {"generated_by": "s", "prompts": "train", "sampling": {"max_new_tokens": 4}}
    fields = modelled(texts, streams={"rollouts": stream})
    fields["connect"][0]["ensemble"] |= {"stream": "rollouts", "labels": 0}
    with pytest.raises(MeshError, match=r"s cannot be asked: texts.jsonl, line \d+ has no prompt") as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == "streams.rollouts.prompts"


def test_given_batches_count_as_what_teaches() -> None:
    fields = {**mesh(mix={"of": "validation", "share": 0.5}), "data": {**SUMS, "validation": 9}}
    found = examine(make_plan(parse(fields), registry()))
    assert any("9 of the 9 validation samples teach s, u by stream 'rollouts'" in mark for mark in found.marks)
    hidden = {**mesh(mix={"of": "transfer", "share": 0.5}), "data": {**SUMS, "transfer": 9}}
    examine(make_plan(parse(hidden), registry()))
    hidden["flows"] = [*hidden["flows"], {"from": "labels", "to": "s", "objective": "ce", "stream": "rollouts"}]
    with pytest.raises(MeshError, match="'transfer' hides its own") as caught:
        examine(make_plan(parse(hidden), registry()))
    assert caught.value.where == "streams.rollouts.mix.of"


def test_who_writes_learns_no_classes(texts: Path) -> None:
    fields = {
        "data": {"dataset": {"text": {"path": str(texts), "label": "label"}}},
        "agents": {name: {"model": bert(8)} for name in "ts"},
        "streams": {"rollouts": {"generated_by": "s", "prompts": "train"}},
        "flows": [
            {"from": "labels", "to": "t", "objective": "ce"},
            {"from": "t", "to": "s", "objective": "kl", "stream": "rollouts", "refresh": "step"},
        ],
    }
    with pytest.raises(MeshError, match="s only writes texts: its outputs are tokens"):
        examine(make_plan(parse(fields), registry()))


def test_what_is_written_once_waits_for_who_writes_it() -> None:
    plan = make_plan(parse(sequence()), registry())
    assert [(stage.name, stage.waits) for stage in plan.stages] == [("t", set()), ("s", {"t"})]
    fields = sequence()
    fields["flows"][-1] = {"from": "s", "to": "t", "objective": "kl", "refresh": "once"}
    with pytest.raises(MeshError, match="stages wait for each other in a cycle"):
        make_plan(parse(fields), registry())


@pytest.mark.parametrize("name", ["on-policy", "privileged-self", "sequence-level"])
def test_bundled_meshes_teach_a_student_to_add_by_written_texts(name: str) -> None:
    fields = read_mesh(name).dump()
    fields["train"]["epochs"] = 12
    (flow,) = (flow for flow in fields["flows"] if flow["to"] in ("student", ["student"]))
    assert fields["streams"][flow["stream"]]["generated_by"] in ("student", "teacher")
    found = [
        run_once(Request(parse({**fields, "train": {**fields["train"], **more}}), "inline"))[0]
        for more in ({"steps": 1}, {})
    ]
    bits = [one["agents"]["student"]["metrics"]["test"]["bits_per_character"] for one in found]
    assert bits[1] < 0.75 * bits[0]


def test_controls_leave_out_what_others_write_and_what_is_written_from_it() -> None:
    fields = reading(first={"keep": [{"length": {"min": 1}}]})
    labels = {"from": "labels", "to": ["s", "u"], "objective": "ce"}
    on_first = {"from": ["t", "u"], "to": "s", "objective": "kl", "stream": "first", "refresh": "step"}
    plan = make_plan(parse({**fields, "flows": [*fields["flows"], labels, on_first]}), registry())
    without = alone(plan, "s", 5)
    assert not without.streams
    refuse_unrun(make_plan(without, registry()), registry())
    one = from_best(plan, "s", "t", Path("nowhere"))
    assert one is not None and list(one.streams) == ["first"]  # `rollouts` is written by u, from what t writes too
    refuse_unrun(make_plan(one, registry()), registry())


def test_a_best_teacher_that_wrote_none_of_its_texts_has_no_control() -> None:
    fields = mesh(generated_by="t")
    flows = [{"from": ["t", "u"], "to": "s", **PLAIN, "refresh": "step"}, TAUGHT]
    plan = make_plan(parse({**fields, "flows": flows}), registry())
    with pytest.raises(MeshError, match=r"u teaches s only on texts that other agents write \(rollouts\)"):
        from_best(plan, "s", "u", Path("nowhere"))
    one = from_best(plan, "s", "t", Path("nowhere"))
    assert one is not None and list(one.streams) == ["rollouts"]
