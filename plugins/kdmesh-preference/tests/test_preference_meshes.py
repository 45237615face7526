"""Meshes with pairs: the package's own, equal bits wherever and however often they are broken off, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from kdmesh import Mesh, MeshError
from kdmesh.backends.inline import InlineBackend
from kdmesh.engine import teach
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.filters import Candidate, WrittenText
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.spec.read import parse, read_mesh
from kdmesh.testing.run_mesh import shared_ray
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdmesh_preference.declared import Declared
from kdmesh_preference.right_over_wrong import RightOverWrong

MESHES = Path(__file__).parents[1] / "meshes"
CONFIG = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16}  # fmt: skip
MODEL = {"hf": {"config": CONFIG, "tokenizer": {"characters": {}}}}
LONGER = {"hf": {"config": {**CONFIG, "max_position_embeddings": 24}, "tokenizer": {"characters": {}}}}
PAIRS: dict[str, Any] = {"pairs": {"of": "train", "pairs": True}}
SUMS = {"dataset": {"sums": {"below": 6, "wrong": True}}}


def mesh(**more: Any) -> dict[str, Any]:
    """A student that goes on from its reference, and a teacher beside it, whose margins it learns too."""
    flow = {"to": "s", "stream": "pairs"}
    return {
        "task": "language_modelling",
        "data": SUMS,
        "text": {"max_length": 16},
        "agents": {"r": {"model": MODEL}, "t": {"model": MODEL}, "s": {"model": MODEL}},
        "streams": PAIRS,
        "flows": [
            {"from": "labels", "to": "r", "objective": "ce"},
            {"from": "r", "to": "s", "as": "weights", "refresh": "once"},
            {"from": "r", **flow, "objective": {"dpo": {"beta": 0.5, "label_smoothing": 0.1}}},
            {"from": "labels", "to": "t", "objective": "ce"},
            {"from": "t", **flow, "objective": {"dpo_distilled": {"beta": 0.5}}, "refresh": "step", "weight": 0.5},
        ],
        "train": {"epochs": 2, "batch_size": 5, "optimizer": {"adamw": {"lr": 3e-3}}},
        **more,
    }


def made_by_agents() -> dict[str, Any]:
    """The same student on pairs that agents make.

    Right over wrong of one teacher, the best over the worst of another by verifiers, and, of the student's own texts,
    what a judge finds likeliest over what it finds least likely. Of what teacher and student say: one over the other,
    right over wrong once each has heard the other, and what the judge names in one order or another.
    """
    sampling = {"max_new_tokens": 3, "samples": 5}
    written: dict[str, Any] = {"prompts": "train", "sampling": sampling}
    verifiers = ["numeric_answer", {"pattern": {"match": "[0-4]", "weight": 0.5}}]
    streams = {
        "right": {"generated_by": "t", "refresh": "once", **written, "pairs": {"answer": {"numeric": True}}},
        "best": {"generated_by": "r", "refresh": "once", **written, "reward": verifiers, "pairs": "best"},
        "judged": {"generated_by": "s", "refresh": "2 steps", **written, "pairs": {"likeliest": {"of": "j"}}},
    }
    one: dict[str, Any] = {"prompts": "train", "sampling": {"max_new_tokens": 3}, "refresh": "2 steps"}
    heard = "{{ a.text }}={{ b.text }}={{ prompt }}"
    streams |= {
        "said": {**one, "generated_by": "t", "refresh": "once"},
        "own": {**one, "generated_by": "s"},
        "again": {**one, "generated_by": "s", "reads": {"a": "own", "b": "said"}, "template": heard},
        "ab": {**one, "generated_by": "j", "reads": {"a": "own", "b": "said"}, "template": heard},
        "ba": {**one, "generated_by": "j", "reads": {"a": "said", "b": "own"}, "template": heard},
        "over": {"consensus_of": ["own", "said"], "rule": {"declared": {"chosen": "said", "rejected": "own"}}},
        "argued": {"consensus_of": ["own", "said", "again"], "rule": {"right_over_wrong": {"numeric": True}}},
        "named": {
            "consensus_of": ["own", "said"],
            "reads": {"ab": "ab", "ba": "ba"},
            "rule": {"best_of": {"verdict": "[0-9]", "least": 1, "names": {"ab": ["0", "1"], "ba": ["1", "0"]}}},
        },
    }
    for name in ("over", "argued", "named"):
        streams[name]["pairs"] = True
    fields = mesh(streams=streams)
    fields["text"] = {"max_length": 24}
    fields["agents"] = {name: {"model": LONGER} for name in fields["agents"]}
    distilled = {"dpo_distilled": {"beta": 0.5}}
    fields["agents"]["j"] = {"model": LONGER, "update": "frozen"}
    fields["flows"][2:] = [
        {"from": "labels", "to": "t", "objective": "ce"},
        {"from": "r", "to": "s", "stream": "right", "objective": {"dpo": {"beta": 0.5}}},
        {"from": "t", "to": "s", "stream": "best", "objective": distilled},
        *({"from": "r", "to": "s", "stream": name, "objective": {"dpo": {"beta": 0.5}}}
          for name in ("judged", "over", "argued", "named")),
    ]  # fmt: skip
    return fields


def outcome(fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What must not depend on breaks and places."""
    session = more.pop("session", None)
    backend = "inline" if session is None else session.name
    summary = run_once(Request(parse(fields), backend, checkpoint_seconds=0, **more), session=session)[0]
    return {name: (one["weights_sha256"], one["metrics"]) for name, one in summary["agents"].items()}


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many chunks were run, and before which one to break off; there is a checkpoint after every one."""
    monkeypatch.setattr(teach, "SECONDS", 0.0)
    monkeypatch.setattr(teach, "WINDOW", 2)
    known, inner = {"made": 0, "last": 0}, InlineBackend.call

    def call(self: Any, host: str, method: str, *args: Any, **options: Any) -> Any:
        known["made"] += method == "run"
        if known["last"] and known["made"] == known["last"]:
            raise Killed
        return inner(self, host, method, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", call)
    return known


ACCUMULATED = mesh()
ACCUMULATED["train"] |= {"accumulate": 2}
MADE = made_by_agents()


@pytest.mark.parametrize("fields", [mesh(), ACCUMULATED, MADE], ids=["plain", "accumulated", "made by agents"])
def test_bits_depend_neither_on_hosts_nor_on_breaks(
    fields: dict[str, Any], tmp_path: Path, calls: dict[str, int]
) -> None:
    expected: dict[str, Any] = {}
    for placement in ("together", "spread"):
        calls.update(made=0, last=0)
        found = outcome({**fields, "placement": placement})
        expected = expected or found
        assert found == expected
        whole, out = calls["made"], tmp_path / placement
        calls.update(made=0, last=whole * 4 // 5 + 1)
        with pytest.raises(KeyboardInterrupt):
            outcome({**fields, "placement": placement}, out=out)
        calls.update(made=0, last=0)
        (folder,) = out.glob("*/*")
        assert outcome({**fields, "placement": placement}, resume=folder) == expected
        assert 0 < calls["made"] < whole


@pytest.mark.ray
@pytest.mark.parametrize("fields", [mesh(), MADE], ids=["given", "made by agents"])
def test_on_ray_they_are_the_same(fields: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """On one Ray, which the whole session of pytest shares."""
    fields = {**fields, "placement": {"a": ["r", "t"], "b": ["s", "j"]} if "j" in fields["agents"] else "spread"}
    assert outcome(fields, session=shared_ray(request.config).session()) == outcome(fields)


@pytest.mark.parametrize("name", ["preference", "preference-distilled"])
def test_a_mesh_of_the_package_runs(name: str) -> None:
    made = read_mesh(str(MESHES / f"{name}.yaml")).dump()
    made["data"]["dataset"]["sums"]["below"] = 6
    made["train"]["epochs"] = 3
    result = Mesh(**made).run(backend="inline")
    figures = result["student"].metrics["test"]
    assert 0 <= figures["pair_accuracy"] <= 1 and figures["pair_margin"] != 0
    assert "pair_accuracy" in result["base"].metrics["test"]["undefined"]
    assert result["student"].weights_sha256 != result["base"].weights_sha256


ROUNDS = [f"debate.{turn}.{name}" for turn in range(2) for name in ("base", "other")]


def test_a_debate_gives_pairs_of_right_over_wrong(tmp_path: Path) -> None:
    made = read_mesh(str(MESHES / "preference-debate.yaml")).dump()
    made["data"] = {"dataset": {"sums": {"below": 6}}}
    made["streams"]["few"]["size"] = 12
    made["train"]["epochs"] = 4
    result = Mesh(**made).run(backend="inline", out=tmp_path)
    (path,) = tmp_path.glob("*/*/streams/debate.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [line for line in lines if line["kept"]]
    assert kept and {line["dropped"] for line in lines} <= {None, "all right", "all wrong", "no answer"}
    for line in kept:
        one, known = line["consensus"], sum(map(int, line["prompt"].rstrip("=").split("+")))
        last = [int(re.findall("[0-9]+", text)[-1]) for text in (line["text"], one["rejected"]["text"])]
        assert last[0] == known != last[1]
        answers = [None if answer is None else float(answer) for answer in one["answers"]]
        for side, first in (("from", True), ("rejected", False)):
            assert re.fullmatch(rf"debate\.[01]\.{one[side]['agent']}", one[side]["stream"])
            at = next(at for at, said in enumerate(answers) if said is not None and (said == known) is first)
            assert ROUNDS[at] == one[side]["stream"]
    assert result["student"].weights_sha256 != result["base"].weights_sha256


def test_figures_of_pairs_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """Of the exported folders, by transformers alone, each answer by itself."""
    metrics = [{"pair_margin": {"of": "r"}}, {"pair_accuracy": {"of": "r"}}]
    result = Mesh(**mesh(metrics=metrics)).run(backend="inline", out=tmp_path)
    (folder,) = tmp_path.glob("*/*")
    from kdmesh.builtin.datasets.sums import sums

    table = sums(below=6, wrong=True)
    margins = {}
    for name in "rst":
        net = AutoModelForCausalLM.from_pretrained(folder / "agents" / name).eval()
        words = AutoTokenizer.from_pretrained(folder / "agents" / name)

        def said(prompt: str, answer: str, net: Any = net, words: Any = words) -> float:
            asked = words(prompt)["input_ids"]
            asked = asked[:-1] if asked[-1] == words.eos_token_id else asked
            ids = [*asked, *words(answer, add_special_tokens=False)["input_ids"], words.eos_token_id]
            with torch.no_grad():
                log_p = net(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            return sum(float(log_p[at - 1, ids[at]]) for at in range(len(asked), len(ids)))

        test = [table.texts[row] for row in table.official["test"].tolist()]
        margins[name] = [said(str(one.prompt), one.text) - said(str(one.prompt), str(one.rejected)) for one in test]
    for name in "st":
        over = [one - other for one, other in zip(margins[name], margins["r"], strict=True)]
        figures = result[name].metrics["test"]
        assert figures["pair_margin"] == pytest.approx(sum(over) / len(over), abs=1e-5)
        assert figures["pair_accuracy"] == pytest.approx(sum(one > 0 for one in over) / len(over))


def test_labels_of_pairs_are_needed_by_dpo_alone() -> None:
    hidden = {"pairs": {**PAIRS["pairs"], "labels": False}}
    distilled = mesh()["flows"]
    with pytest.raises(MeshError, match="'dpo' needs labels, and stream 'pairs' has none"):
        Mesh(**mesh(streams=hidden)).plan()
    del distilled[2]
    Mesh(**mesh(streams=hidden, flows=distilled)).plan()


@pytest.mark.parametrize("teacher", ["r", "t"])
def test_one_that_cuts_texts_into_other_tokens_is_refused_by_name(teacher: str) -> None:
    """A reference, or a teacher of margins: of what the student reads it says nothing."""
    fields = mesh()
    words = {"hf": {**MODEL["hf"], "tokenizer": {"bpe": {"vocabulary": 300}}}}
    fields["agents"][teacher] = {"model": words, "update": "frozen"}
    fields["flows"] = [flow for flow in fields["flows"] if flow["to"] == "s" and flow.get("as") != "weights"]
    number = [flow["from"] for flow in fields["flows"]].index(teacher)
    with pytest.raises(MeshError, match=f"{teacher} and s cut texts into different tokens") as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == f"flows.{number}"
    assert caught.value.instead == "agents with one tokenizer and limit"


def test_a_pair_that_is_longer_than_the_context_is_named() -> None:
    with pytest.raises(MeshError, match=r"agents\.s: \d\+\d, rejected answer.* is cut away .* in the pairs of 'pairs'"):
        examine(make_plan(parse(mesh(text={"max_length": 5})), registry()))


def argued(**rule: Any) -> dict[str, Any]:
    """Pairs of what the teacher and the reference say, by a rule of this package."""
    how = {"prompts": "train", "refresh": "once", "sampling": {"max_new_tokens": 3}}
    streams = {
        "one": {**how, "generated_by": "t"},
        "other": {**how, "generated_by": "r"},
        "pairs": {"consensus_of": ["one", "other"], "pairs": True, "rule": rule},
    }
    flows = [*mesh()["flows"][:3], {"from": "labels", "to": "t", "objective": "ce"}]
    return mesh(streams=streams, flows=flows)


OF_TEXTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "another stream": (
        argued(declared={"chosen": "one", "rejected": "pairs"}), "streams.pairs.rule.declared.rejected",
        "'pairs' is none of the streams",
    ),
    "itself": (argued(declared={"chosen": ["other", "one"], "rejected": "one"}), "streams.pairs.rule.declared",
               "'one' would be chosen over itself"),
    "twice": (argued(declared={"chosen": ["one", "one"], "rejected": "other"}), "streams.pairs.rule.declared", "twice"),
    "no column": (argued(right_over_wrong={"column": "answr"}), "streams.pairs.rule.right_over_wrong.column",
                  "no column 'answr'"),
    "nothing found": (argued(right_over_wrong={"pattern": "[0-9]*"}), "streams.pairs.rule.right_over_wrong.pattern",
                      "needs a character"),
    "no pattern": (argued(right_over_wrong={"pattern": "("}), "streams.pairs.rule.right_over_wrong.pattern",
                   "no regular expression"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_TEXTS)
def test_a_rule_that_cannot_make_pairs_is_refused(name: str) -> None:
    fields, where, told = OF_TEXTS[name]
    with pytest.raises(MeshError, match=told) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == where


def test_several_texts_of_one_stream_have_no_declared_order() -> None:
    fields = argued(declared={"chosen": "one", "rejected": "other"})
    fields["streams"]["one"]["sampling"] = {"max_new_tokens": 3, "samples": 2}
    with pytest.raises(MeshError, match="'one' has several texts to a prompt"):
        examine(make_plan(parse(fields), registry()))
    fields["streams"]["one"] = fields["streams"]["third"] = fields["streams"]["other"]
    fields["streams"]["pairs"]["consensus_of"] = ["third", "other", "one"]
    with pytest.raises(MeshError, match="texts of 'third' are neither chosen nor rejected") as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == "streams.pairs.rule.declared.chosen"
    assert caught.value.instead == "chosen: a list, of third, other, one; or `consensus_of` without third"


def test_a_rule_for_pairs_alone_needs_them() -> None:
    fields = argued(right_over_wrong={"numeric": True})
    del fields["streams"]["pairs"]["pairs"]
    fields["flows"][2] = {"from": "labels", "to": "s", "stream": "pairs", "objective": "ce"}
    with pytest.raises(MeshError, match="one is learned of a stream without pairs") as caught:
        examine(make_plan(parse(fields), registry()))
    assert (caught.value.where, caught.value.instead) == ("streams.pairs.rule", "pairs: true, or best_of")


def test_right_is_what_the_data_answer_to_every_prompt(tmp_path: Path) -> None:
    fields = argued(right_over_wrong={"numeric": True})
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"q": f"{one}+1=", "known": str(one + 1)}) for one in range(20)))
    fields["data"] = {"dataset": {"text": {"path": str(path), "prompt": "q"}}, "validation": 0, "test": 0}
    fields["flows"] = [flow for flow in fields["flows"] if flow["from"] != "labels"]
    for name in "rt":
        fields["agents"][name]["update"] = "frozen"
    with pytest.raises(MeshError, match="line 1 has no answer, and rule 'right_over_wrong' compares with it") as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == "streams.pairs.rule" and "column: COLUMN" in str(caught.value.instead)
    fields["streams"]["pairs"]["rule"] = {"right_over_wrong": {"numeric": True, "column": "known"}}
    examine(make_plan(parse(fields), registry()))


@pytest.mark.parametrize("name", ["one", "other"])
def test_right_is_not_told_of_texts_whose_answers_are_hidden(name: str) -> None:
    fields = argued(right_over_wrong={"numeric": True})
    fields["streams"][name]["labels"] = False
    with pytest.raises(MeshError, match=f"'{name}' hides .* rule 'right_over_wrong' of 'pairs' compares") as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == f"streams.{name}.labels" and "column: COLUMN" in str(caught.value.instead)


def test_a_filter_that_drops_what_is_rejected_is_refused() -> None:
    fields = argued(right_over_wrong={"numeric": True})
    fields["streams"]["pairs"]["keep"] = ["length", "answer"]
    with pytest.raises(MeshError, match="rejects what is wrong, and filter 'answer' drops it: no pair") as caught:
        Mesh(**fields).plan()
    assert caught.value.where == "streams.pairs.keep.1"
    for rule, kept in (({"numeric": True}, {"pattern": "[0-9]"}), ({}, {"numeric": True})):
        fields["streams"]["pairs"] |= {"rule": {"right_over_wrong": rule}, "keep": [{"answer": kept}]}
        Mesh(**fields).plan()


def said(*words: str, known: str = "3") -> list[Candidate]:
    """One text of each of some streams."""
    about: dict[str, Any] = {"given": known, "columns": {"known": known}}
    return [
        Candidate(WrittenText(0, 0, "1+2=", text, len(text), True, **about), f"s{at}", f"a{at}")
        for at, text in enumerate(words)
    ]


@pytest.mark.parametrize(
    ("words", "silent", "found"),
    [
        (("is 4", "", "so 3.0", "3"), "out", (2, 0, "")),
        (("hm", "3", "5"), "out", (1, 2, "")),
        (("hm", "3", "5"), "wrong", (1, 0, "")),
        (("3", "is 3"), "out", (None, None, "all right")),
        (("3", "hm"), "out", (None, None, "all right")),
        (("4", "", "5"), "out", (None, None, "all wrong")),
        (("hm", ""), "out", (None, None, "no answer")),
        (("hm", ""), "wrong", (None, None, "all wrong")),
    ],
)
def test_the_first_right_answer_is_chosen_over_the_first_wrong_one(
    words: tuple[str, ...], silent: str, found: tuple[int | None, int | None, str]
) -> None:
    rule = RightOverWrong(None, "known", True, silent)
    choice = rule.choose(said(*words), {})
    assert (choice.chosen, choice.rejected, choice.why) == found
    assert len(choice.counted) == sum(not re.search("[0-9]", one) for one in words)
    assert all(one in (None, "3", "4", "5") for one in choice.told["answers"])  # as `vote` tells them, 3 and 3.0 alike
    unknown = rule.choose(said(*words, known=" "), {})
    assert (unknown.chosen, unknown.why) == (None, "no right answer known")


def test_of_several_that_are_chosen_the_first_that_says_something_is() -> None:
    rule = Declared(["s1", "s0"], "s2")
    assert [(one.chosen, one.rejected, one.why) for one in (
        rule.choose(said("a", "b", "c"), {}), rule.choose(said("a", "", ""), {}), rule.choose(said("", "", "c"), {}),
        rule.choose(said("a", "b", "c")[:2], {})
    )] == [(1, 2, ""), (0, 2, ""), (None, None, "nothing to choose"), (1, None, "nothing to reject")]  # fmt: skip


REFUSED = {
    "one answer": ({"stream": "train"}, "compares two answers to a prompt, and samples of 'train' have one"),
    "a group": ({"denominator": {"group": "kind"}}, "not those of single samples"),
    "a gate of rows": ({"gate": {"small_loss": {"forget": 0.5}}}, "is given no rows of a batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_for_pairs_is_refused(name: str) -> None:
    more, told = REFUSED[name]
    flows = mesh()["flows"]
    flows[2] |= more
    with pytest.raises(MeshError, match=told):
        Mesh(**mesh(flows=flows)).plan()
