"""Texts that a language model writes where others classify: equal bits, what is learned of them, and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_text_rollouts import calls, elsewhere, outcome, seldom  # noqa: F401  calls is a fixture
from text_meshes import bert, gpt, llama
from text_runs import told as lines_of

from kdmesh.api import Mesh
from kdmesh.backends import Session
from kdmesh.builtin.datasets.numerals import CLASSES, numerals, spelled
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, RunFailed
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse

NUMBERS = {"dataset": {"numerals": {"below": 60}}, "train": 24}
WRITER = {"model": llama(16, vocabulary=None), "view": {"prompt": "{{ label }}: "}}
FROZEN = {"model": llama(16, vocabulary=None), "update": "frozen"}
TRUTH = {spelled(number): CLASSES[number % 2] for number in range(1000)}


def mesh(writer: dict[str, Any] | None = None, **stream: Any) -> dict[str, Any]:
    """A writer and a classifier that learn first, and two students, with unlike tokenizers, of what is written once."""
    stream = {"generated_by": "w", "prompts": "train", "refresh": "once", **stream}
    stream.setdefault("sampling", {"max_new_tokens": 8, "samples": 2})
    flows = [{"from": "labels", "to": "a", "objective": "ce"}]
    if writer is None:
        flows.append({"from": "labels", "to": "w", "objective": "ce"})
    flows.append({"from": "labels", "to": ["s", "u"], "objective": "ce", "stream": "rollouts"})
    return {
        "data": NUMBERS,
        "agents": {
            "w": WRITER if writer is None else writer,
            "a": {"model": bert(8)},
            "s": {"model": bert(8, vocabulary=None)},
            "u": {"model": bert(16)},
        },
        "streams": {"rollouts": stream},
        "flows": flows,
        "text": {"max_length": 40},
        "train": {"epochs": 2, "batch_size": 5, "optimizer": {"adamw": {"lr": 3e-3}}},
        "placement": "together",
    }


ASKED = "{{ text }} is {{ label }}, as is "


@pytest.mark.parametrize("own", [{}, {"view": {"prompt": ASKED}}])
def test_what_a_rule_chooses_of_them_needs_prompts_of_the_data(own: dict[str, Any]) -> None:
    """A prompt of the writer's own is asked with, and is none of what is learned."""
    fields = mesh({**FROZEN, **own}, **({} if own else {"template": ASKED}))
    rule = {"consensus_of": ["tried"], "rule": "vote"}
    fields["streams"] = {"tried": fields["streams"]["rollouts"], "rollouts": rule}
    with pytest.raises(MeshError, match=r"after the data's prompts: .* has no prompt to answer") as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == "streams.rollouts.consensus_of" and "view" not in str(caught.value.instead)


HIDDEN = {
    **mesh(FROZEN, template=ASKED, labels=False),
    "consensus": {"agreed": {"rule": "mean", "space": "probs"}},
    "flows": [
        {"from": "labels", "to": "a", "objective": "ce"},
        {"from": "labels", "to": "u", "objective": "ce"},
        {"from": ["a", "u"], "to": "agreed", "stream": "rollouts"},
        {"from": "agreed", "to": "s", "objective": "kl", "stream": "rollouts"},
    ],
}
MESHES = {
    "once, of several stages": mesh(keep=["length", {"dedup": {"across": True}}, {"confirmed": {"of": ["a"]}}]),
    "each step, by a frozen one": mesh(FROZEN, template=ASKED, refresh="step"),
    "each epoch, among given ones": mesh(
        FROZEN,
        template=ASKED,
        refresh="epoch",
        mix={"of": "train", "share": 0.5},
        keep=[{"pattern": {"match": "[a-m]"}}],
    ),
    "with no labels, as others answer": HIDDEN,
}
ONE = {"each step, by a frozen one", "each epoch, among given ones"}  # no stream written anew is read in two stages
for name in ONE:
    MESHES[name]["flows"][-1]["to"] = ["s"]
    MESHES[name]["flows"].append({"from": "labels", "to": "u", "objective": "ce"})


@pytest.mark.parametrize(("name", "whole", "broken"), elsewhere(MESHES))
def test_bits_depend_neither_on_hosts_nor_on_breaks(
    name: str,
    whole: str,
    broken: str,
    tmp_path: Path,
    calls: dict[str, int],  # noqa: F811
) -> None:
    expected = outcome(MESHES[name], whole, out=tmp_path / "whole")
    (folder,) = (tmp_path / "whole").glob("*/*")
    (tally, lines), made = lines_of(folder), calls["made"]
    calls.update(made=0, last=int(made * (0.5 if broken == "together" else 0.8)) + 1)
    with pytest.raises(KeyboardInterrupt):
        outcome(MESHES[name], broken, out=tmp_path / "broken")
    calls.update(made=0, last=0)
    (folder,) = (tmp_path / "broken").glob("*/*")
    assert outcome(MESHES[name], broken, resume=folder) == expected
    assert lines_of(folder) == (tally, lines)
    assert 0 < calls["made"] < made
    assert tally["written"] == len(lines) and 0 < tally["kept"] == sum(line["kept"] for line in lines)
    assert {line.get("label") for line in lines} == ({None} if name.startswith("with no") else {*CLASSES})


@pytest.mark.ray
@pytest.mark.parametrize("name", seldom(["once, of several stages"], "each epoch, among given ones"))
def test_on_ray_they_are_the_same(name: str, ray_session: Session) -> None:
    assert outcome(MESHES[name], "spread", session=ray_session) == outcome(MESHES[name])


def test_who_only_writes_is_no_part_of_what_is_measured(tmp_path: Path) -> None:
    summary, out, _ = run_once(Request(parse(mesh()), "inline", out=tmp_path))
    assert out is not None
    folder = out.root
    assert summary["agents"]["w"]["role"] == "writer"
    assert all(not figures for figures in summary["agents"]["w"]["metrics"].values())
    assert summary["agents"]["s"]["metrics"]["test"]["accuracy"] >= 0
    facts = json.loads((folder / "agents" / "w" / "kdmesh.json").read_text())
    assert facts["task"] == "language_modelling" and facts["labels"] == []


def test_what_the_topology_writes_teaches_an_encoder(tmp_path: Path) -> None:
    result = Mesh.read("augment").run(backend="inline", out=tmp_path)
    assert result.folder is not None
    lines = [json.loads(line) for line in (result.folder / "streams" / "new.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["kept"]]
    right = [line for line in kept if TRUTH.get(line["text"]) == line["label"]]
    table = numerals()
    held = {sample.text for sample in table.texts[table.official["test"]]}
    assert len(right) > 100 and not held & {line["text"] for line in kept}
    assert result["student"].metrics["test"]["accuracy"] > 0.85  # chance is a half; it saw no text of the data


def rows(folder: Path, **more: Any) -> dict[str, Any]:
    """Data of a file with columns: the texts are numbers, and `asked` is the class of what is to be written."""
    path = folder / "rows.jsonl"
    made = [
        {"text": spelled(number), "kind": CLASSES[number % 2], "asked": CLASSES[number % 3 % 2]} for number in range(40)
    ]
    made = [{**one, **more} for one in made]
    path.write_text("\n".join(map(json.dumps, made)), encoding="utf-8")
    return {"dataset": {"text": {"path": str(path), "text": "text", "label": "kind"}}, "validation": 0}


def test_a_column_may_say_the_class(tmp_path: Path) -> None:
    fields = {**mesh(FROZEN, template="{{ asked }}: ", label="asked"), "data": rows(tmp_path)}
    _, out, _ = run_once(Request(parse(fields), "inline", out=tmp_path / "runs"))
    assert out is not None
    folder = out.root
    _, lines = lines_of(folder)
    asked = [json.loads(line)["asked"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert lines and all(line["label"] == asked[line["sample"]] for line in lines)


def test_a_later_run_classifies_what_was_written(tmp_path: Path) -> None:
    _, out, _ = run_once(Request(parse(mesh()), "inline", out=tmp_path))
    assert out is not None
    folder = out.root
    written = {"path": str(folder / "streams" / "rollouts.jsonl"), "label": "label"}
    later = {"data": {"dataset": {"written": written}, "validation": 0}, "agents": {"s": {"model": bert(8)}}}
    assert run_once(Request(parse(later), "inline"))[0]["agents"]["s"]["updates"] > 0


def changed(fields: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The mesh with parts of sections replaced, or with more flows."""
    for name, part in parts.items():
        fields = {**fields, name: [*fields[name], part] if isinstance(fields[name], list) else {**fields[name], **part}}
    return fields


def refused(fields: dict[str, Any]) -> MeshError:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    return caught.value


def test_models_of_one_configuration_may_write_and_classify() -> None:
    found = examine(make_plan(parse(changed(mesh(), agents={"a": {"model": WRITER["model"]}})), registry()))
    assert found.outputs["a"].shape[-1] == len(CLASSES) < found.outputs["w"].shape[-1]


def rewritten(**more: Any) -> dict[str, Any]:
    """The mesh whose students learn what others answer, with more said of its stream."""
    return changed(HIDDEN, streams={"rollouts": {**HIDDEN["streams"]["rollouts"], **more}})


FLOW = {"stream": "rollouts", "objective": "kl", "refresh": "step"}
REFUSED = [
    (changed(mesh(FROZEN, template=ASKED), agents={"w": {"model": {"mlp": {"hidden": [4]}}, "update": "frozen"}}),
     "agents.w.model", "this model reads numbers"),
    (mesh(FROZEN), "streams.rollouts.prompts", "has no prompt to answer"),
    (mesh(FROZEN, template="{{ topic }}"), "streams.rollouts.template", "'topic' is undefined"),
    (mesh(label="topic"), "streams.rollouts.label", "no column 'topic'"),
    (rewritten(label="topic"), "streams.rollouts.label", "labels of this stream are hidden"),
    (mesh(keep=[{"confirmed": {}}]), "streams.rollouts.keep.0.confirmed", "names none"),
    (mesh(keep=[{"confirmed": {"of": ["w"]}}]), "streams.rollouts.keep.0.confirmed.of", "w only writes texts"),
    (mesh(keep=[{"confirmed": {"of": ["x"]}}]), "streams.rollouts.keep.0.confirmed.of", "unknown agent 'x'"),
    (mesh(keep=[{"confirmed": {"of": ["s"]}}]), "streams.rollouts.keep.0.confirmed.of", "s trains beside s"),
    (mesh(keep=[{"confirmed": {"of": "a", "votes": 2}}]), "streams.rollouts.keep.0.confirmed.votes", "1 agents"),
    (rewritten(keep=[{"confirmed": {"of": "a"}}]), "streams.rollouts.keep.0.confirmed", "hides them"),
    (changed(mesh(), flows={"from": "w", "to": "s", **FLOW}), "flows.3", "w only writes texts"),
    (changed(mesh(), flows={"from": "a", "to": "w", **FLOW}), "flows.3", "w only writes texts"),
    (changed(mesh(), flows={"from": "labels", "to": "w", "objective": "ce", "stream": "rollouts"}),
     "flows.3.stream", "would learn what an agent writes"),
    (changed(mesh(), agents={"v": {"weights_of": "w"}}), "agents.v.weights_of", "weights of w are of both"),
    (changed(mesh(), agents={"w": {**WRITER, "train": {"evaluate_every": 1}}}), "agents.w.train.evaluate_every",
     "not measured"),
    (changed(rewritten(prompts="hidden"), streams={"hidden": {"labels": False}}), "streams.rollouts.template",
     "which are hidden"),
    (mesh(FROZEN, template=ASKED, refresh="step"), "streams.rollouts", "several stages"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_cannot_be_written_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    error = refused(fields)
    assert what in error.what and error.where.startswith(where)


def test_a_writer_that_is_no_language_model_is_named_with_its_stream() -> None:
    fields = changed(mesh(FROZEN, template="{{ label }}: "), agents={"w": {"model": bert(8), "update": "frozen"}})
    with pytest.raises(MeshError, match=r"bert sees the tokens .*; w writes the texts of 'rollouts'") as caught:
        run_once(Request(parse(fields), "inline"))
    assert caught.value.where == "agents.w.model.hf.config"


def test_a_class_that_is_none_is_refused_with_its_sample(tmp_path: Path) -> None:
    data = rows(tmp_path, asked="prime")
    error = refused({**mesh(FROZEN, template="{{ asked }}: ", label="asked"), "data": data})
    assert error.where == "streams.rollouts.label"
    assert re.fullmatch(r".*rows.jsonl, line \d+, column 'asked': 'prime' is no class of the data", error.what)


def test_other_tasks_refuse_what_is_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "values.jsonl"
    path.write_text("\n".join(json.dumps({"text": spelled(n), "value": n / 40}) for n in range(40)), encoding="utf-8")
    data = {"dataset": {"text": {"path": str(path), "text": "text", "values": ["value"]}}, "validation": 0}
    flows = [{**flow, "objective": "mse" if flow["to"] != "w" else "ce"} for flow in mesh()["flows"]]
    fields = {**mesh({**WRITER, "view": {"prompt": "number: "}}), "task": "regression", "data": data}
    fields["flows"] = [*flows[:1], {"from": "labels", "to": "w", "objective": "ce"}, *flows[2:]]
    assert run_once(Request(parse(fields), "inline"))[0]["streams"]["rollouts"]["kept"] > 0
    for more, where in (({"label": "text"}, "label"), ({"keep": [{"confirmed": {"of": "a"}}]}, "keep.0.confirmed")):
        one = changed(fields, streams={"rollouts": {**fields["streams"]["rollouts"], **more}})
        assert refused(one).where == f"streams.rollouts.{where}"


def test_what_nobody_can_read_is_dropped() -> None:
    fields = mesh(FROZEN, template=ASKED, sampling={"max_new_tokens": 1, "samples": 4})
    fields["agents"]["w"] = {"model": gpt(8, vocabulary=None), "update": "frozen"}  # a space, or nothing, now and then
    tally = run_once(Request(parse(fields), "inline"))[0]["streams"]["rollouts"]
    assert tally["dropped"]["unreadable"] > 0 and tally["kept"] > 0
    fields["streams"]["rollouts"]["keep"] = [{"pattern": {"match": "never"}}]
    with pytest.raises(RunFailed, match="none of the 96 texts that w wrote is kept"):
        run_once(Request(parse(fields), "inline"))
