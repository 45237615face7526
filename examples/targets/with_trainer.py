"""Targets from the store in a Hugging Face Trainer: ``python examples/targets/with_trainer.py``.

It needs ``pip install accelerate``, as Trainer does. A mesh trains a teacher of texts, whose answers are kept as it
teaches there; another student then learns from them by Trainer, with no teacher in memory.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from transformers import DataCollatorWithPadding as Padding

import kdmesh
from kdmesh.objectives import ForwardKL
from kdmesh.store import Store

WORDS = {"animal": ["cat", "dog", "horse"], "colour": ["red", "green", "blue"], "number": ["one", "two", "three"]}
FILL = ["the", "a", "some", "this", "that", "my", "your", "very", "old", "new"]


class Distilling(Trainer):
    """A Trainer whose loss is that of the labels and of the targets."""

    kl = ForwardKL(temperature=2.0)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
        targets = inputs.pop("targets")
        outputs = model(**inputs)
        loss = 0.5 * outputs.loss + 0.5 * self.kl(outputs.logits, targets)
        return (loss, outputs) if return_outputs else loss


def main(epochs: int = 12, folder: str | None = None, count: int = 400) -> float:
    """Return and print the accuracy of the student on the texts that it learned from."""
    if folder is None:
        with TemporaryDirectory() as made:
            return main(epochs, made, count)
    texts, store = sentences(Path(folder, "texts.jsonl"), count), str(Path(folder, "store"))
    run = mesh(Path(folder, "texts.jsonl"), epochs).run(out=Path(folder, "runs"), store=store)

    tokenizer = AutoTokenizer.from_pretrained(run.folder / "agents" / "teacher")
    names = sorted(WORDS)
    items = [{**tokenizer(one["text"]), "labels": names.index(one["label"])} for one in texts]
    (key,) = (one.digest for one in Store.open(store).entries() if one.info["agent"] == "teacher")  # `kdmesh store ls`
    # the mesh held some texts back, of which the teacher said nothing that it kept for a student
    answered = kdmesh.targets(items, key, store=store, tokenizer=tokenizer, missing="skip")

    torch.manual_seed(0)
    shape = BertConfig(vocab_size=len(tokenizer), num_labels=len(names), **sizes(16))
    student = BertForSequenceClassification(shape)
    arguments = TrainingArguments(
        output_dir=str(Path(folder, "trainer")), num_train_epochs=epochs, per_device_train_batch_size=16,
        learning_rate=1e-2, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,  # `targets` is one that the model does not use
    )  # fmt: skip
    collator = kdmesh.TargetsCollator(Padding(tokenizer))
    trainer = Distilling(student, arguments, data_collator=collator, train_dataset=answered)
    trainer.train()
    student.eval()
    with torch.no_grad():
        said = [student(torch.tensor([one["input_ids"]])).logits.argmax().item() for one in items]
    accuracy = sum(one["labels"] == guess for one, guess in zip(items, said, strict=True)) / len(items)
    print(f"student of {len(answered)} answers: {accuracy:.1%} of all texts")
    return accuracy


def sentences(path: Path, count: int) -> list[dict[str, str]]:
    """Sentences of filling words around one word that gives the class away, which are written to a file."""
    draw, found = random.Random(0), []
    for number in range(count):
        label = sorted(WORDS)[number % 3]
        words = [draw.choice(FILL) for _ in range(draw.randint(2, 7))]
        words[draw.randrange(len(words))] = draw.choice(WORDS[label])
        found.append({"text": " ".join(words), "label": label})
    path.write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    return found


def sizes(width: int) -> dict[str, int]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    return dict(zip(names, (width, 2 * width, 1, 2, 64), strict=True))


def mesh(path: Path, epochs: int) -> kdmesh.Mesh:
    """A teacher that learns from labels, and a student of the mesh's own, for which its answers are kept."""
    made = kdmesh.Mesh(
        data={"dataset": {"text": {"path": str(path), "label": "label"}}, "validation": 0.1, "test": 0.1},
        text={"max_length": 48},
        train={"epochs": epochs, "batch_size": 16, "optimizer": {"adamw": {"lr": 3e-3}}},
    )
    # So narrow that the last bits of an answer depend on no CPU on its place in a batch: else it would not be kept.
    for name, width in (("teacher", 24), ("student", 16)):
        model = {"config": {"model_type": "bert", **sizes(width)}, "tokenizer": {"bpe": {"vocabulary": 300}}}
        made.agent(name, {"hf": model})
    made.connect("ensemble", teachers="teacher", student="student")
    return made


if __name__ == "__main__":
    main()
