"""T5 as an agent: a run and a loop of plain transformers end with the same weights, exactly; and what it cannot be."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.errors import MeshError
from kdmesh.streams.order import epoch_order
from kdmesh.streams.tokens import padded_length
from kdmesh.text import tokenizers
from kdmesh.text.settings import TokenizerConfig

EPOCHS, SIZE, SEED, T = 2, 8, 7, 2.0
WORDS = ["cats", "dogs", "bird", "fish", "blue", "grey"]
TINY = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The mesh's agents compute with one thread, so the plain loops do too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lines() -> list[dict[str, str]]:
    draw, found = random.Random(1), []
    for _ in range(40):
        words = [draw.choice(WORDS) for _ in range(draw.randint(1, 5))]
        found.append({"question": "say backwards: " + " ".join(words), "answer": " ".join(words[::-1])})
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts with answers, and two models of transformers, ``s`` and ``t``."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, lines())), encoding="utf-8")
    every = [text for line in lines() for text in line.values()]
    made = tokenizers.load(TokenizerConfig(bpe={"vocabulary": 300}), lambda: every, two_parts=True)
    settings = {name: value for name, value in TINY.items() if name != "model_type"}
    for number, name in enumerate("st"):
        torch.manual_seed(number)
        more = {"vocab_size": len(made), "pad_token_id": made.pad_token_id, "eos_token_id": made.eos_token_id}
        config = T5Config(**settings, **more, decoder_start_token_id=made.pad_token_id)
        AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder / name)
        made.save_pretrained(folder / name)
    return folder


def mesh(home: Path, names: str = "s", **more: Any) -> kdmesh.Mesh:
    dataset = {"text": {"path": str(home / "texts.jsonl"), "text": "answer", "prompt": "question"}}
    train = {"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}}
    usual = {"task": "language_modelling", "data": {"dataset": dataset, "train": 24}, "train": train}
    one = kdmesh.Mesh(**{**usual, "seed": SEED, **more})
    for name in names:
        one.agent(name, {"hf": {"path": str(home / name)}}, **({} if name == "s" else {"update": "frozen"}))
    return one


class Plain:
    """The same batches and models as transformers has them."""

    def __init__(self, home: Path, one: kdmesh.Mesh) -> None:
        self.nets = {name: AutoModelForSeq2SeqLM.from_pretrained(home / name) for name in "st"}
        self.tokenizer, self.rows = AutoTokenizer.from_pretrained(home / "s"), examine(one.plan()).streams["train"].rows
        self.optimizer = torch.optim.SGD(self.nets["s"].train().parameters(), lr=0.1, momentum=0.9, fused=True)

    def batches(self) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
        """Inputs, labels and which of them count, as wide as the longest prompt with its answer is."""
        for epoch in range(EPOCHS):
            for at in self.rows[epoch_order(SEED, "train", epoch, len(self.rows))].split(SIZE):
                chosen = [lines()[row] for row in at.tolist()]
                asked = [self.tokenizer(one["question"])["input_ids"] for one in chosen]
                said = [self.tokenizer(one["answer"])["input_ids"] for one in chosen]
                width = max(len(one) + len(two) for one, two in zip(asked, said, strict=True))
                pad = self.tokenizer.pad_token_id
                ids, labels = (
                    torch.tensor([one + [pad] * (width - len(one)) for one in side]) for side in (asked, said)
                )
                counts = torch.tensor([[at < len(one) for at in range(width)] for one in said])
                mask = torch.tensor([[int(at < len(one)) for at in range(width)] for one in asked])
                start = self.nets["s"].config.decoder_start_token_id
                decoder = torch.cat([torch.full((len(labels), 1), start), labels[:, :-1]], 1)
                yield {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": decoder}, labels, counts

    def difference(self, found: kdmesh.Mesh, out: Path | None = None) -> float:
        """Run the mesh; the largest difference of any weight of the student."""
        self.result = found.run(backend="inline", out=out, store="off")
        pairs = zip(self.result["s"].module.net.parameters(), self.nets["s"].parameters(), strict=True)
        return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


def test_answers_are_learned_as_transformers_learns_them(home: Path, tmp_path: Path) -> None:
    """Saved as transformers reads it, loaded, and asked: what it writes is what transformers writes greedily."""
    one = mesh(home)
    plain = Plain(home, one)
    for inputs, labels, counts in plain.batches():
        plain.optimizer.zero_grad()
        F.cross_entropy(plain.nets["s"](**inputs).logits[counts], labels[counts]).backward()
        plain.optimizer.step()
    assert plain.difference(one, tmp_path) == 0.0
    folder = plain.result.folder / "agents" / "s"
    told = plain.result.summary["agents"]["s"]["export"]
    assert told["by"] == "transformers" and not told["problem"], told
    again, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    asked = [line["question"] for line in lines()[:3]]
    read = tokenizer(asked, padding=True, return_tensors="pt", return_token_type_ids=False)
    written = again.generate(**read, max_new_tokens=6, do_sample=False, num_beams=1)
    expected = tokenizer.batch_decode(written, skip_special_tokens=True)
    assert kdmesh.load(folder).predict(asked, most=6).answers == expected


@torch.no_grad()
def still(net: Any, inputs: dict[str, Tensor], counts: Tensor, row: int) -> Tensor:
    """What a model that does not train says of one sample: in a row of 8, 16 ... tokens, of eight rows."""
    length = int(inputs["attention_mask"][row].sum() + counts[row].sum())
    width = int(padded_length(torch.tensor([length])))
    alone = {name: F.pad(value[row, :length], (0, width - length)).expand(8, -1) for name, value in inputs.items()}
    return net(**alone).logits[0, : int(counts[row].sum())]


def test_a_teacher_s_tokens_are_learned_as_a_plain_loop_does(home: Path) -> None:
    """Off-policy: the divergence from a frozen teacher on the answers that the data give, and the labels."""
    one = mesh(home, "st")
    one.connect("ensemble", teachers="t", student="s", objective={"kl": {"temperature": T}}, labels=0.5)
    plain = Plain(home, one)
    order = [edge.source for edge in one.plan().edges if edge.target == "s"]
    teacher = plain.nets["t"].eval()
    for inputs, labels, counts in plain.batches():
        target = torch.cat([still(teacher, inputs, counts, row) for row in range(len(labels))])
        plain.optimizer.zero_grad()
        own = plain.nets["s"](**inputs).logits[counts]
        heard = F.kl_div((own / T).log_softmax(-1), (target / T).softmax(-1), reduction="batchmean") * T**2
        parts = {"t": 0.5 * heard, "labels": 0.5 * F.cross_entropy(own, labels[counts])}
        sum((parts[name] for name in order[1:]), parts[order[0]]).backward()
        plain.optimizer.step()
    assert plain.difference(one) == 0.0


def test_a_teacher_writes_and_a_student_learns_it(home: Path, tmp_path: Path) -> None:
    """Sequence-level, and on-policy: both write by a cache, what is written is learned, and the streams are kept."""
    for writer in "ts":
        refresh = {"refresh": "once"} if writer == "t" else {}
        said = {"generated_by": writer, "prompts": "train", "sampling": {"max_new_tokens": 4}, **refresh}
        one = mesh(home, "st", train={"steps": 2, "batch_size": 4}, streams={"said": said})
        flow: Any = {"objective": "ce"} if writer == "t" else {"objective": "reverse_kl"}
        one.flow("labels" if writer == "t" else "t", "s", stream="said", **flow)
        found = one.run(backend="inline", out=tmp_path / writer, store="off")
        assert (found.folder / "streams").is_dir()
        before = AutoModelForSeq2SeqLM.from_pretrained(home / "s").state_dict()
        assert any(not torch.equal(value, before[name]) for name, value in found["s"].module.net.state_dict().items())


@pytest.mark.parametrize(
    ("more", "agent", "said"),
    [
        ({"text": {"pack": True}}, {}, "text.pack: a model that reads with one part.*pack: false"),
        ({}, {"lora": {"rank": 2}}, "t5 reads with one part and writes with another, and is trained whole"),
        ({}, {"layers": [0]}, "is trained whole"),
        ({"data": "no prompt"}, {}, "there is no prompt.*a decoder alone"),
    ],
)
def test_what_it_cannot_be_is_said(more: dict[str, Any], agent: dict[str, Any], said: str, home: Path) -> None:
    if more.get("data"):
        more = {"data": {"dataset": {"text": {"path": str(home / "texts.jsonl"), "text": "answer"}}, "train": 24}}
    one = mesh(home, "", **more)
    one.agent("s", {"hf": {"path": str(home / "s"), **agent}})
    with pytest.raises(MeshError, match=f"(?s){said}"):
        examine(one.plan())
