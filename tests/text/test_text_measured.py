"""What agents write is measured: by a loop of one's own, alike wherever they are; samples on the page; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_text_rollouts import mesh
from text_meshes import bert, modelled
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdmesh.backends import Session
from kdmesh.engine.check import examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, RunFailed
from kdmesh.filters import WrittenText
from kdmesh.graph.planner import make_plan
from kdmesh.plugins import registry
from kdmesh.report.page.facts import page_of
from kdmesh.report.page.html import html
from kdmesh.spec.read import parse

METRICS = ["exact_match", "numeric_answer", "rouge_l", {"distinct_n": {"n": 1}}, "answer_length", "perplexity"]
LENGTH = {"decoding": {"max_new_tokens": 4}}
BROKEN = f"{__name__}:breaks"


def breaks(text: WrittenText) -> bool:
    if text.prompt.startswith("6+"):
        raise KeyError("no such answer")
    return True


def measured(**more: Any) -> dict[str, Any]:
    fields = {**mesh(), "metrics": METRICS, "text": LENGTH, **more}
    return {**fields, "data": {**fields["data"], "validation": 9}}


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: one["metrics"] for name, one in summary["agents"].items()}


def test_figures_are_those_of_generating_by_hand(tmp_path: Path) -> None:
    fields = measured()
    summary = run_once(Request(parse(fields), "inline", out=tmp_path))[0]
    (folder,) = tmp_path.glob("*/*")
    found = examine(make_plan(parse(fields), registry()))
    for name in ("t", "s", "u"):
        model = AutoModelForCausalLM.from_pretrained(folder / "agents" / name)
        tokenizer = AutoTokenizer.from_pretrained(folder / "agents" / name)
        said, own = [], summary["agents"][name]["metrics"]["test"]
        for row in found.streams["test"].rows.tolist():
            sample = found.table.x[row]
            begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
            ids = torch.tensor([begin + tokenizer(sample.prompt, add_special_tokens=False)["input_ids"]])
            out = model.generate(ids, do_sample=False, max_new_tokens=4, pad_token_id=0)[0, ids.shape[1] :].tolist()
            length = out.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in out else len(out)
            said.append((tokenizer.decode(out[:length], skip_special_tokens=True), sample.text, length))
        assert own["exact_match"] == sum(text.strip() == given for text, given, _ in said) / len(said)
        assert own["answer_length"] == sum(length for *_, length in said) / len(said)
        assert own["perplexity"] == pytest.approx(2.718281828459045 ** own["loss"])
        assert {one["text"] for one in own["texts"]} <= {text for text, *_ in said}


def test_they_do_not_depend_on_places() -> None:
    fields = measured(text={"decoding": {"max_new_tokens": 4, "temperature": 0.8}})
    found = [
        figures(run_once(Request(parse({**fields, "placement": placement}), "inline"))[0])
        for placement in ("together", "spread")
    ]
    assert found[0] == found[1]
    assert found[0]["s"]["validation"]["texts"] != found[0]["u"]["validation"]["texts"]


@pytest.mark.ray
def test_nor_on_ray(ray_session: Session) -> None:
    fields = measured(placement="spread")
    one = run_once(Request(parse(fields), "inline"))[0]
    other = run_once(Request(parse(fields)), session=ray_session)[0]
    assert figures(one) == figures(other)


def test_a_run_chooses_and_stops_by_them() -> None:
    fields = measured(primary="rouge_l")
    fields["train"] = {**fields["train"], "early_stopping": {"patience": 1}}
    summary = run_once(Request(parse(fields), "inline"))[0]
    assert summary["metric"] == "rouge_l"


REFUSED = [
    (measured(text={"decoding": {"samples": 2, "temperature": 0.5}}), "text.decoding.samples", "answered once"),
    (measured(text={"decoding": {"greedy": True, "top_p": 0.5}}), "text.decoding.top_p", "has no effect"),
    (measured(text={}), "text.decoding.max_new_tokens", "its prompt has"),
    ({**mesh(), "text": LENGTH}, "text.decoding", "no metric of this mesh"),
    (measured(metrics=[{"rouge_l": {"by": "city"}}]), "metrics.0", "measured by no column"),
    (measured(metrics=[{"verifier": {"path": "nothing"}}]), "metrics.0.verifier.path", "package.module:function"),
    (measured(metrics=[{"verifier": {"path": f"{__name__}:measured"}}]), "metrics", "no bool or float"),
]


@pytest.mark.parametrize(("fields", "where", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_what_cannot_be_measured_is_refused(fields: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MeshError) as caught:
        examine(make_plan(parse(fields), registry()))
    assert caught.value.where == where and what in caught.value.what


def test_encoders_write_nothing(texts: Path) -> None:
    fields = {
        "data": {"dataset": {"text": {"path": str(texts), "label": "label"}}},
        "metrics": ["rouge_l"],
        "agents": {"a": {"model": bert(8)}},
        "flows": [{"from": "labels", "to": "a", "objective": "ce"}],
    }
    with pytest.raises(MeshError, match="task classification writes none"):
        examine(make_plan(parse(fields), registry()))


def test_texts_without_prompts_are_refused_by_sample(texts: Path) -> None:
    fields = modelled(texts, metrics=["rouge_l"], text=LENGTH)
    with pytest.raises(MeshError, match=r"cannot be asked: texts.jsonl, line \d+ has no prompt"):
        examine(make_plan(parse(fields), registry()))


def test_a_verifier_that_raises_is_named_with_sample_and_agent() -> None:
    fields = measured(metrics=[{"verifier": {"path": BROKEN}}])
    with pytest.raises(
        (RunFailed, MeshError), match=r"'verifier'.* on what [stu] wrote to \w+.*KeyError.*on the text to 6\+"
    ):
        run_once(Request(parse(fields), "inline"))


def test_what_was_written_stands_on_the_page_escaped(tmp_path: Path) -> None:
    run_once(Request(parse(measured()), "inline", out=tmp_path))
    (folder,) = tmp_path.glob("*/*")
    summary = json.loads((folder / "summary.json").read_text())
    evil = "<script>alert(1)</script>"
    summary["agents"]["s"]["metrics"]["test"]["texts"][0]["text"] = evil
    (folder / "summary.json").write_text(json.dumps(summary))
    page = html(page_of(folder))
    assert "What agents wrote" in page and "Written streams" in page
    assert evil not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
