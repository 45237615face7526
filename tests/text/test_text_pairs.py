"""Two answers to a prompt: how data give them, what batches have of them, what is refused or left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_texts import bpe
from text_meshes import gpt, llama

from kdmesh import MeshError
from kdmesh.builtin.datasets.text import text
from kdmesh.engine.check import examine
from kdmesh.graph.plan import Plan
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.plugins import registry
from kdmesh.spec.read import parse
from kdmesh.streams.texts import Sample, Texts, answers_of
from kdmesh.text.encoder import Encoder

AGENTS: dict[str, Any] = {
    "t": {"model": llama(16, vocabulary=None), "update": "frozen"},
    "s": {"model": gpt(8, vocabulary=None)},
}
PAIRS: dict[str, Any] = {"pairs": {"of": "train", "pairs": True}}


def lines(count: int = 6) -> list[dict[str, Any]]:
    """Sums with a right answer and a wrong one, some of another length."""
    pairs = [(a, b) for a in range(count) for b in range(count)]
    return [{"q": f"{a}+{b}=", "good": str(a + b), "bad": str((a + b) * (2 + a % 2) + 1)} for a, b in pairs]


def write(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {"dataset": {"text": {"path": str(path), "prompt": "q", "text": "good", "rejected": "bad"}}}


def mesh(folder: Path, rows: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """A frozen teacher says what it thinks of both answers."""
    return {
        "task": "language_modelling",
        "data": write(folder, lines() if rows is None else rows),
        "agents": AGENTS,
        "streams": PAIRS,
        "flows": [{"from": "t", "to": "s", "stream": "pairs", "objective": "kl"}],
        "train": {"epochs": 1, "batch_size": 5},
        "placement": "together",
        **more,
    }  # fmt: skip


def plan(fields: dict[str, Any]) -> Plan:
    return make_plan(parse(fields), registry())


def encoder(**more: Any) -> Encoder:
    return Encoder(bpe(), "language_modelling", **{"max_length": 32, **more})


SAMPLES = [
    Sample("the cat", prompt="a", rejected="my very old dog"),
    Sample("some red bird", prompt="the", rejected="one"),
    Sample("two", prompt="your old", rejected="three"),
]


def test_a_pair_is_its_two_answers_each_in_a_row_of_its_own() -> None:
    """Tokens, units and targets are those of the answers as samples of their own, in any batch and in any shape."""
    made = encoder()
    pairs, _ = made.encode(Texts(SAMPLES), pairs=True)
    alone, _ = made.encode(Texts([one for sample in SAMPLES for one in answers_of(sample)]))
    for at in (torch.tensor([0, 1, 2]), torch.tensor([2, 0])):
        batch, rows = pairs.batch(at), torch.stack([2 * at, 2 * at + 1], 1).flatten()
        plain = alone.batch(rows)
        for name in ("ids", "mask", "units", "targets"):
            assert torch.equal(getattr(batch, name), getattr(plain, name)), name
        assert torch.equal(batch.pairs[:, 0] * 2 + batch.pairs[:, 1], plain.spans[:, 0])
        assert torch.equal(batch.pairs[:, 2], batch.targets)
        assert len(batch) == len(at) and batch.ids.shape[0] == 2 * len(at)
    for at, part in pairs.parts(2):
        own = part.pairs[:, :2].tolist()
        assert own == sorted(own) and {answer for _, answer in own} == {0, 1}
        assert part.ids.shape[0] == 4 and len(at) <= 2
    again = [(row.ids, row.units, row.texts) for row in pairs.samples()]
    assert [sum(texts) for _, _, texts in again if texts] == [len(ids) for ids, _, _ in again]


def test_conversations_differ_in_their_last_turn(tmp_path: Path) -> None:
    told = [("user", "a cat"), ("assistant", "the cat"), ("user", "and")]
    before = [{"role": role, "content": words} for role, words in told]
    good, bad = ({"role": "assistant", "content": words} for words in ("my dog", "one bird"))
    forms = [
        {"p": before, "good": [good], "bad": [bad]},
        {"good": [*before, good], "bad": [*before, bad]},
        {"good": [*before, good], "bad": [bad]},
    ]
    found = []
    for number, row in enumerate(forms):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(row), encoding="utf-8")
        (sample,) = text(path=str(path), messages="good", rejected="bad", prompt="p" if "p" in row else None).texts
        found.append(sample)
    turns = [(turn["role"], turn["content"]) for turn in (*before, good)]
    for sample in found:
        assert sample.messages == tuple(turns) and sample.rejected == ("assistant", "one bird")
    tokenizer = bpe()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    made = Encoder(tokenizer, "language_modelling", max_length=64)
    (row,) = made.encode(Texts(found[:1]), pairs=True)[0].samples()
    assert row.texts is not None
    said = tokenizer.decode([token for token in row.targets if not made.is_special(token)])
    assert "my dog" in said and "one bird" in said and "the cat" not in said
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps({"good": [*before, good], "bad": [before[0], bad]}), encoding="utf-8")
    with pytest.raises(MeshError, match=r"the turns before its last one are not those of 'good'"):
        text(path=str(path), messages="good", rejected="bad")


def test_pairs_that_say_nothing_are_left_out_by_name(tmp_path: Path) -> None:
    rows = lines()
    rows[3]["bad"] = rows[3]["good"]
    found = examine(plan(mesh(tmp_path, rows, data={**write(tmp_path, rows), "test": 0, "validation": 0})))
    assert found.left_out is not None and found.left_out.tolist() == [3]
    said = " ".join(found.notes)
    left = "1 of 36 pairs of 'pairs' are left out of all streams because s cannot read them: sample 3, "
    assert left + "pairs.jsonl, line 4" in said
    assert "both answers are the same" in said
    whole = {**write(tmp_path, rows), "test": 0, "validation": 0}
    with pytest.raises(MeshError, match=r"line 4.*both answers are the same"):
        examine(plan(mesh(tmp_path, rows, text={"over": "refuse"}, data=whole)))
    rows[3]["bad"] = " "
    with pytest.raises(MeshError, match=r"'bad', line 4.*an empty text"):
        write(tmp_path, rows)
        text(path=str(tmp_path / "pairs.jsonl"), prompt="q", text="good", rejected="bad")


def test_answers_that_are_cut_are_told_and_what_no_longer_differs_is_left_out() -> None:
    samples = [
        Sample("a b c d e f g h", prompt="a", rejected="h g f e d c b a"),
        Sample("a b c d e f g h", prompt="a", rejected="a b c d e f g a"),
        Sample("a", prompt="a b c d e f g h", rejected="b"),
    ]
    _, report = encoder(max_length=7).encode(Texts(samples), pairs=True)
    assert report.truncated == [0] and set(report.unreadable) == {1, 2}
    assert "the same tokens within the 7 tokens" in report.unreadable[1]
    assert "an answer is cut away within the 7 tokens" in report.unreadable[2]


FLOW = {"to": "s", "stream": "pairs"}
WRITTEN = {"generated_by": "s", "prompts": "train"}
TOLD = {**AGENTS, "t": {**AGENTS["t"], "view": {"prompt": "{{ prompt }}"}}}
MIX = {"of": "pairs", "share": 0.5}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "labels on pairs": ({"flows": [{"from": "labels", **FLOW, "objective": "ce"}]}, "that are rejected, too"),
    "spans": ({"flows": [{"from": "t", **FLOW, "objective": "span"}]}, "compares spans of one text"),
    "a view": ({"agents": TOLD}, "told a prompt of its own, before pairs"),
    "written": ({"streams": {**PAIRS, "w": {**WRITTEN, "pairs": True}}}, "no pairs"),
    "mixed": ({"streams": {**PAIRS, "w": {**WRITTEN, "mix": MIX}}}, "has two answers"),
    "no agent": ({"metrics": [{"pair_margin": {"of": "nobody"}}]}, "unknown agent 'nobody'"),
    "of, of another metric": ({"metrics": [{"rouge_l": {"of": "t"}}]}, "compares an agent's answers with the labels"),
    "by a column": ({"metrics": [{"pair_margin": {"by": "kind"}}]}, "measured by no column"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_on_pairs_is_refused(name: str, tmp_path: Path) -> None:
    more, told = REFUSED[name]
    with pytest.raises(MeshError, match=told):
        refuse_unrun(plan(mesh(tmp_path, **more)), registry(), None)


def test_pairs_are_asked_of_data_that_have_them(tmp_path: Path) -> None:
    fields = mesh(tmp_path)
    del fields["data"]["dataset"]["text"]["rejected"]
    with pytest.raises(MeshError, match=r"line .* has one answer, and its pair is read") as caught:
        examine(plan(fields))
    assert caught.value.where == "streams.pairs.pairs"
    unread = mesh(tmp_path, streams={}, flows=[{"from": "labels", "to": "s", "objective": "ce"}])
    assert any("rejected answers, and no stream" in note for note in examine(plan(unread)).notes)


def test_other_tasks_read_no_second_answer(tmp_path: Path) -> None:
    fields = mesh(tmp_path)
    fields["data"]["dataset"]["text"]["label"] = "q"
    with pytest.raises(MeshError, match="`rejected` and `label` do not go together"):
        plan(fields)
