"""Labels of each kind over transformers: a run and a loop of plain transformers end with the same weights, exactly."""

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
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.streams.order import epoch_order
from kdmesh.text import tokenizers
from kdmesh.text.settings import TokenizerConfig

EPOCHS, SIZE, SEED, T = 2, 8, 7, 2.0
WORDS = ["cats", "dogs", "bird", "fish", "blue", "grey", "tall", "tiny"]
COLUMNS = {"multi_label": ["blue", "cats"], "regression": ["length", "cats"]}
FIELD = {"multi_label": "indicators", "regression": "values"}
LOSS = {"multi_label": "bce", "regression": "mse"}
PROBLEM = {"multi_label": "multi_label_classification", "regression": "regression"}


def rows(longest: int) -> list[dict[str, Any]]:
    """Texts of two words up to ``longest``, without shorter ones where that is 2."""
    draw, found = random.Random(1), []
    for _ in range(70):
        words = [draw.choice(WORDS) for _ in range(draw.randint(2, longest))]
        facts = {word: int(word in words) for word in ("blue", "cats")}
        found.append({"text": " ".join(words), **facts, "length": len(words) / 4})
    return found


class Both:
    """One mesh over saved models of transformers, and the same models and batches for a plain loop."""

    def __init__(self, folder: Path, task: str, names: str, longest: int, train: int) -> None:
        self.task, lines = task, rows(longest)
        (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        tokenizer = tokenizers.load(TokenizerConfig(bpe={"vocabulary": 300}), lambda: [row["text"] for row in lines])
        for number, name in enumerate(names):
            torch.manual_seed(number)
            config = BertConfig(
                vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=24, max_position_embeddings=64, hidden_dropout_prob=0, attention_probs_dropout_prob=0,
                num_labels=2, problem_type=PROBLEM[task], pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
            AutoModelForSequenceClassification.from_config(config).save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
        self.mesh = kdmesh.Mesh(
            task=task,
            data={
                "dataset": {"text": {"path": str(folder / "texts.jsonl"), FIELD[task]: COLUMNS[task]}},
                "train": train,
            },
            seed=SEED,
            train={"epochs": EPOCHS, "batch_size": SIZE, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}},
        )
        for name in names:
            update = {} if name == "s" else {"update": "frozen"}
            self.mesh.agent(name, {"hf": {"path": str(folder / name), "max_length": 60}}, **update)
        self.nets = {name: AutoModelForSequenceClassification.from_pretrained(folder / name) for name in names}
        self.start = {name: value.clone() for name, value in self.nets["s"].named_parameters()}
        self.tokenizer, self.lines = AutoTokenizer.from_pretrained(folder / "s"), lines

    def batches(self) -> Iterator[tuple[Any, Tensor]]:
        """What the tokenizer makes of each batch, and its labels."""
        rows = examine(self.mesh.plan()).streams["train"].rows
        for epoch in range(EPOCHS):
            for at in rows[epoch_order(SEED, "train", epoch, len(rows))].split(SIZE):
                chosen = [self.lines[row] for row in at.tolist()]
                inputs = self.tokenizer([row["text"] for row in chosen], padding=True, return_tensors="pt")
                yield inputs, torch.tensor([[float(row[name]) for name in COLUMNS[self.task]] for row in chosen])

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.nets["s"].train().parameters(), lr=0.1, momentum=0.9, fused=True)

    def difference(self, out: Path | None = None) -> float:
        """Run the mesh; the largest difference of any weight of the student, of which all have moved."""
        assert all(not torch.equal(value, self.start[name]) for name, value in self.nets["s"].named_parameters())
        self.result = self.mesh.run(backend="inline", out=out)
        pairs = zip(self.result["s"].module.net.parameters(), self.nets["s"].parameters(), strict=True)
        return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


@pytest.mark.parametrize("task", COLUMNS)
def test_labels_are_learned_as_transformers_learns_them(task: str, tmp_path: Path) -> None:
    """Texts of unlike lengths; the loss is the one that transformers computes of these labels."""
    both = Both(tmp_path, task, "s", longest=9, train=44)
    both.mesh.flow("labels", "s", objective={LOSS[task]: {"per_element": True}})
    optimizer, widths = both.optimizer(), set()
    for inputs, labels in both.batches():
        optimizer.zero_grad()
        both.nets["s"](**inputs, labels=labels).loss.backward()
        optimizer.step()
        widths.add(inputs["input_ids"].shape)
    assert len(widths) > 2
    assert both.difference(tmp_path / "runs") == 0.0
    folder = both.result.folder / "agents" / "s"
    again = AutoModelForSequenceClassification.from_pretrained(folder)
    config = again.config
    assert config.problem_type == PROBLEM[task] and config.id2label == dict(enumerate(COLUMNS[task]))
    told = AutoTokenizer.from_pretrained(folder)(["blue cats", "tiny tall bird"], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs, plain = again.eval()(**told).logits, both.nets["s"].eval()(**told).logits
        ours = kdmesh.load(folder)(["blue cats", "tiny tall bird"])
    torch.testing.assert_close(theirs, plain, atol=1e-5, rtol=0)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    assert both.result.summary["agents"]["s"]["export"]["by"] == "transformers"
    assert not both.result.summary["agents"]["s"]["export"]["problem"]


@pytest.mark.parametrize("task", COLUMNS)
def test_an_ensemble_of_texts_teaches_as_a_plain_loop_does(task: str, tmp_path: Path) -> None:
    """Two frozen teachers, by their mean: of each label's probability at T, or of values."""
    both = Both(tmp_path, task, "abs", longest=2, train=40)
    objective: Any = {"binary_kl": {"temperature": T}} if task == "multi_label" else "mse"
    both.mesh.connect("ensemble", teachers=["a", "b"], student="s", objective=objective, consensus="mean", labels=0.5)
    order = [edge.source for edge in both.mesh.plan().edges if edge.target == "s"]
    a, b, student = both.nets["a"].eval(), both.nets["b"].eval(), both.nets["s"]
    optimizer = both.optimizer()
    for inputs, labels in both.batches():
        assert inputs["input_ids"].shape[0] == SIZE
        width = -inputs["input_ids"].shape[1] % 8  # a model that does not train is asked in lengths of 8, 16 ...
        still = {name: F.pad(value, (0, width)) for name, value in inputs.items()}
        with torch.no_grad():
            said = [teacher(**still).logits for teacher in (a, b)]
        optimizer.zero_grad()
        own = student(**inputs).logits
        if task == "multi_label":
            taught = F.binary_cross_entropy_with_logits(own, labels, reduction="none").sum() / SIZE
            p = ((said[0] / T).sigmoid() + (said[1] / T).sigmoid()) / 2
            heard = F.binary_cross_entropy_with_logits(own / T, p, reduction="none").sum() / SIZE * T**2
        else:
            taught = F.mse_loss(own, labels, reduction="none").sum() / SIZE
            heard = F.mse_loss(own, (said[0] + said[1]) / 2, reduction="none").sum() / SIZE
        parts = [0.5 * (taught if source == "labels" else heard) for source in order]
        sum(parts[1:], parts[0]).backward()
        optimizer.step()
    assert both.difference() == 0.0
