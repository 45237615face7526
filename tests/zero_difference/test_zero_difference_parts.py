"""Reasoning and answer apart: runs and loops of plain transformers end with the same weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_parts import Lesson, Parted
from test_zero_difference_rollouts import BOTH, END, EPOCHS, NEW, SEED, SIZE, Both
from transformers import LlamaForCausalLM

import kdmesh
from kdmesh.engine.check import examine

sys.path.append(str(Path(__file__).parents[1] / "endpoints"))

from server import Server

MARKS = ("<t>", "</t>")
TRAIN = {"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.2, "momentum": 0.9}}}


class Thinking(Both):
    """Answers of four kinds: explained, given alone, without the first mark, and an explanation that never ends."""

    signs = Both.signs + "<t/>"

    @staticmethod
    def says(a: int, b: int) -> str:
        begin, end = MARKS
        return [f"{begin}{a}+{b}{end}{a + b}", str(a + b), f"{b}+{a}{end}{a + b}", f"{begin}{a}+{a}"][(a + b) % 4]


def mesh(both: Both, marks: tuple[str, str], flows: list[dict[str, Any]], **more: Any) -> kdmesh.Mesh:
    """A student of these flows."""
    model = {name: {"model": {"hf": {"path": str(both.folder / name), "max_length": 40}}} for name in "stu"}
    return kdmesh.Mesh(
        **{
            "task": "language_modelling",
            "data": both.data,
            "text": {"bucket": False, "reasoning": list(marks)},
            "placement": "together",
            "seed": SEED,
            "agents": {
                "s": model["s"],
                **{name: {**model[name], "update": "frozen"} for name in both.teachers},
            },
            "flows": flows,
            "train": TRAIN,
            **more,
        }
    )


def loop(both: Both, made: kdmesh.Mesh, marks: tuple[str, str], flows: list[dict[str, Any]], **more: Any) -> Parted:
    """The plain side of such a mesh, untrained."""
    rows = examine(made.plan()).streams["train"].rows.tolist()
    nets = {name: LlamaForCausalLM.from_pretrained(both.folder / name).eval() for name in "s" + both.teachers}
    lessons = [Lesson(flow["part"], flow.get("weight", 1.0), nets.get(flow["from"])) for flow in flows]
    return Parted(
        nets["s"].train(), [], {row: both.prompts[row] for row in rows}, {row: both.given[row] for row in rows},
        both.eos, both.pad, SEED, SIZE, NEW, lambda parameters: torch.optim.SGD(parameters, lr=0.2, momentum=0.9,
        fused=True), marks=marks, words=both.words, lessons=lessons, **more,
    )  # fmt: skip


def same(both: Both, result: Any, plain: Parted) -> None:
    """Equal weights, of which all have moved."""
    start = LlamaForCausalLM.from_pretrained(both.folder / "s").state_dict()
    for name, value in result["s"].module.net.state_dict().items():
        assert torch.equal(value, plain.student.state_dict()[name]), name
        assert not torch.equal(value, start[name]), name


LABELS = {"from": "labels", "to": "s", "objective": "ce"}
PARTS = [{**LABELS, "part": "reasoning", "weight": 0.5}, {**LABELS, "part": "answer"}]


@pytest.mark.parametrize("only", [None, "reasoning", "answer"])
def test_given_answers_and_what_explains_them_are_two_lessons(only: str | None, tmp_path: Path) -> None:
    both = Thinking(tmp_path, "", BOTH)
    flows = [flow for flow in PARTS if only in (None, flow["part"])]
    made = mesh(both, MARKS, flows)
    plain = loop(both, made, MARKS, flows, share=1.0)
    plain.train(EPOCHS)
    assert all(min(sizes) for sizes in plain.sizes) and len(set(plain.sizes)) > 2
    same(both, made.run(backend="inline"), plain)


def test_what_a_student_writes_is_compared_with_teachers_by_parts(tmp_path: Path) -> None:
    """One teacher for reasoning, the other for answers, which begin after the last `=`; some batches lack a part."""
    both = Both(tmp_path, "tu", END)
    taught = {"to": "s", "stream": "rollouts", "objective": "reverse_kl", "refresh": "step"}
    flows = [
        {**taught, "from": "t", "part": "reasoning", "weight": 0.5},
        {**taught, "from": "u", "part": "answer"},
        {**PARTS[1], "stream": "rollouts", "weight": 0.25},
    ]
    streams = {"rollouts": {"generated_by": "s", "prompts": "train", "sampling": {"max_new_tokens": NEW}}}
    train = {**TRAIN, "batch_size": 2}
    made = mesh(both, ("", "="), flows, streams=streams, train=train)
    plain = loop(both, made, ("", "="), flows)
    plain.size = 2
    plain.train(EPOCHS)
    assert any(sizes[0] == 0 for sizes in plain.sizes) and any(all(sizes) for sizes in plain.sizes)
    same(both, made.run(backend="inline"), plain)


CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '+' + m.content }}{% else %}{{ '=' }}"
    "{% if m.reasoning_content %}{{ '<t>' + m.reasoning_content + '</t>' }}{% endif %}{{ m.content + eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '=' }}{% endif %}"
)


def test_reasoning_content_of_chats_is_a_lesson_of_its_own(tmp_path: Path) -> None:
    """As `apply_chat_template` of transformers writes it."""
    both = Thinking(tmp_path, "", END)
    both.words.chat_template = CHAT
    both.words.save_pretrained(tmp_path / "s")
    chats: list[list[dict[str, str]]] = []
    for a, b in ((a, b) for a in range(5) for b in range(5)):
        thought = {"reasoning_content": f"{a}+{b}"} if a != b else {}
        chats.append([{"role": "user", "content": f"{a}{b}"}, {"role": "assistant", "content": str(a + b), **thought}])
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(json.dumps({"messages": chat}) for chat in chats), encoding="utf-8")
    both.data = {"dataset": {"text": {"path": str(path), "messages": "messages"}}}
    written = [both.words.apply_chat_template(chat, tokenize=True)["input_ids"] for chat in chats]
    asked = [
        both.words.apply_chat_template(chat[:1], tokenize=True, add_generation_prompt=True)["input_ids"]
        for chat in chats
    ]
    both.prompts, both.given = asked, [(ids, len(before)) for ids, before in zip(written, asked, strict=True)]
    made = mesh(both, MARKS, PARTS)
    plain = loop(both, made, MARKS, PARTS, share=1.0)
    plain.train(EPOCHS)
    assert all(min(sizes) for sizes in plain.sizes)
    same(both, made.run(backend="inline"), plain)


def added(prompt: str) -> str:
    return str(sum(map(int, prompt.strip("=").split("+"))))


def explained(prompt: str) -> str:
    """What the endpoint thinks of a sum: of two equal numbers nothing."""
    one, two = prompt.strip("=").split("+")
    return "" if one == two else f"{one}+{two}"


@pytest.fixture
def server() -> Iterator[Server]:
    """An endpoint that explains sums apart from its answers."""
    made = Server(answer=lambda prompt, number, body: added(prompt) if "+" in prompt else "yes")
    made.reasons = lambda prompt: explained(prompt) if "+" in prompt else ""
    yield made
    made.close()


def test_reasoning_that_an_endpoint_tells_apart_is_a_lesson_of_its_own(tmp_path: Path, server: Server) -> None:
    both = Thinking(tmp_path, "", BOTH)
    api = {"base_url": server.url, "model": "tiny", "tokenizer": str(tmp_path / "s"), "max_length": 40}
    agents = {
        "s": {"model": {"hf": {"path": str(tmp_path / "s"), "max_length": 40}}},
        "gpt": {"model": {"api": api}, "update": "frozen"},
    }
    how = {"max_new_tokens": 20, "greedy": True}
    streams = {"told": {"generated_by": "gpt", "prompts": "train", "refresh": "once", "sampling": how}}
    flows = [{**flow, "stream": "told"} for flow in PARTS]
    made = mesh(both, MARKS, flows, agents=agents, streams=streams)
    begin, end = MARKS
    for row, question in enumerate(both.questions):
        thought = explained(question)
        words = f"{begin}{thought}{end}{added(question)}" if thought else added(question)
        both.given[row] = [*both.prompts[row], *both.words(words)["input_ids"], both.eos], len(both.prompts[row])
    plain = loop(both, made, MARKS, flows, share=1.0)
    plain.train(EPOCHS)
    assert all(min(sizes) for sizes in plain.sizes)
    same(both, made.run(backend="inline"), plain)
