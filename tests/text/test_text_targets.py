"""Answers to texts as targets of a loop without a mesh: found by token ids, and beside the rows that they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from text_meshes import bert, gpt, rows
from torch.utils.data import DataLoader

import kdmesh
from kdmesh.engine.check import examine
from kdmesh.hosts.modules import build
from kdmesh.objectives import ForwardKL
from kdmesh.plugins import registry
from kdmesh.signals.sparse import TopKLogits
from kdmesh.store import Store
from kdmesh.text.encoder import WORD

TEXTS = [row["text"] for row in rows(90)]
WORDS, MODELLED, LABELS = {"task": "token_classification"}, {"task": "language_modelling"}, {"label": "label"}
HINT = {"objective": "hint", "tap": {"of": "hidden.1", "to": "hidden.1"}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Any, dict[str, Any]]] = {
    "sentences": ({}, LABELS, bert, {"objective": "kl"}),
    "words": (WORDS, {"spans": "spans"}, bert, {"objective": "kl"}),
    "language": (MODELLED, {}, gpt, {"objective": "kl"}),
    "top k": (MODELLED, {}, gpt, {"objective": "kl", "signal": {"top_k": {"k": 4}}}),
    "hidden": ({}, LABELS, bert, HINT),
}


class Padding:
    """A collator as those of transformers: pads on one side, and says where."""

    def __init__(self, left: bool) -> None:
        self.left = left

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(item["input_ids"]) for item in items)

        def padded(values: list[int], by: int) -> list[int]:
            more = [by] * (width - len(values))
            return [*more, *values] if self.left else [*values, *more]

        return {
            "input_ids": torch.tensor([padded(item["input_ids"], 0) for item in items]),
            "attention_mask": torch.tensor([padded([1] * len(item["input_ids"]), 0) for item in items]),
        }


class Filled:
    """A mesh that has kept what its teacher says of texts; and the teacher, and its tokenizer."""

    def __init__(self, case: str, texts: Path, store: Path, **more: Any) -> None:
        task, columns, model, flow = CASES[case]
        mesh = kdmesh.Mesh(
            **task,
            data={"dataset": {"text": {"path": str(texts), **columns}}, "validation": 0, "test": 0.1},
            agents={"t": {"model": model(24, **more), "update": "frozen"}, "s": {"model": model(8)}},
            flows=[
                {"from": "labels", "to": "s", "objective": "ce"}, {"from": "t", "to": "s", "refresh": "once", **flow},
            ],
            train={"epochs": 1, "batch_size": 8},
        )  # fmt: skip
        mesh.run(backend="inline", store=store)
        plan = mesh.plan()
        found = examine(plan)
        self.teacher = build(plan, "t", found.reading, registry(), {}).eval()
        self.tokenizer = found.reading.encoder("t").tokenizer
        self.kept = set(found.streams["train"].rows.tolist())
        self.keys = {
            str(one.key.signal.get("made", {}).get("name", one.key.signal["output"])): one.digest
            for one in Store.open(store).entries()
            if one.key is not None
        }

    def items(self, case: str) -> list[dict[str, Any]]:
        """The texts as anyone would tokenise them for such a model."""
        if case in ("sentences", "hidden"):
            return [dict(self.tokenizer(text)) for text in TEXTS]
        if case == "words":
            return [self._tagged(text) for text in TEXTS]
        told = [self.tokenizer(text)["input_ids"] for text in TEXTS]
        return [{"input_ids": ids, "labels": ids} for ids in told]

    def _tagged(self, text: str) -> dict[str, Any]:
        told = self.tokenizer(text, return_offsets_mapping=True)
        starts = {match.start() for match in WORD.finditer(text)}
        spans = [(first + (text[first : first + 1] == " "), last) for first, last in told["offset_mapping"]]
        labels = [0 if first in starts and last > first else -100 for first, last in spans]
        return {"input_ids": told["input_ids"], "labels": labels}


@pytest.mark.parametrize(
    ("case", "left"), [*((case, False) for case in CASES), ("words", True), ("language", True)]
)  # one that answers by its first token is not padded there
def test_targets_stand_beside_the_rows_that_they_are_for(case: str, left: bool, texts: Path, tmp_path: Path) -> None:
    """The teacher itself, asked in a padded batch, says the same at these rows."""
    filled = Filled(case, texts, tmp_path)
    name = {"top k": "top_k", "hidden": "hidden.1"}.get(case, "")
    items = filled.items(case)
    answered = kdmesh.targets(items, filled.keys[name], store=tmp_path, tokenizer=filled.tokenizer, missing="skip")
    assert filled.kept <= {*range(90)} - {*answered.left_out}
    assert answered.form == ("hidden" if case == "hidden" else "logits")
    loader = DataLoader(answered, 8, shuffle=True, collate_fn=kdmesh.TargetsCollator(Padding(left)))
    for batch in loader:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        places = (mask.cumsum(1) - 1).clamp_min(0)
        with torch.no_grad():
            out = filled.teacher.net(
                input_ids=ids, attention_mask=mask, position_ids=places, output_hidden_states=case == "hidden"
            )
        said = out.hidden_states[1] if case == "hidden" else out.logits
        if case != "sentences":
            said = said.flatten(0, 1)[batch["target_rows"]]
        targets = batch["targets"]
        if case == "top k":
            assert isinstance(targets, TopKLogits)
            best = said.log_softmax(-1).gather(1, targets.index.long())
            torch.testing.assert_close(targets.values, best, rtol=1e-4, atol=1e-5)
            assert ForwardKL(temperature=1.0)(said, targets) < 0.1  # of the mass that is not among the four
        else:
            torch.testing.assert_close(targets, said, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> tuple[Filled, Path]:
    import text_meshes

    folder = tmp_path_factory.mktemp("sentences")
    return Filled("sentences", text_meshes.write(folder), folder / "store"), folder / "store"


def test_padded_items_are_those_without_padding(sentences: tuple[Filled, Path]) -> None:
    filled, store = sentences
    items = [dict(filled.tokenizer(text, padding="max_length", max_length=40)) for text in TEXTS]
    assert len(items[0]["input_ids"]) == 40
    answered = kdmesh.targets(items, filled.keys[""], store=store, tokenizer=filled.tokenizer, missing="skip")
    assert len(answered) >= len(filled.kept)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers(sentences: tuple[Filled, Path], start: str) -> None:
    filled, store = sentences
    items = filled.items("sentences")
    answered = kdmesh.targets(items, filled.keys[""], store=store, tokenizer=filled.tokenizer, missing="skip")

    def all_of(**more: Any) -> torch.Tensor:
        collate = kdmesh.TargetsCollator(Padding(False))
        return torch.cat([batch["targets"] for batch in DataLoader(answered, 16, collate_fn=collate, **more)])

    assert torch.equal(all_of(), all_of(num_workers=2, multiprocessing_context=start))


def other_tokenizer(texts: list[str], **more: Any) -> Any:
    from kdmesh.text.settings import TokenizerConfig
    from kdmesh.text.tokenizers import make

    return make(TokenizerConfig.model_validate(more), texts)


def test_what_may_be_other_words_is_refused(sentences: tuple[Filled, Path]) -> None:
    filled, store = sentences
    items, key = filled.items("sentences"), filled.keys[""]

    def refused(said: str, given: Any = items, **more: Any) -> None:
        with pytest.raises(kdmesh.MeshError, match=said):
            kdmesh.targets(given, key, store=store, **{"missing": "skip", **more})

    own = {"tokenizer": filled.tokenizer}
    shuffled = other_tokenizer([*TEXTS[::2], "zebra " * 9], bpe={"vocabulary": 300})
    refused("token ids alone do not say which words they are")
    refused("read with another tokenizer: its 300 tokens have other numbers", tokenizer=shuffled)
    refused("this is no tokenizer", tokenizer="bert")
    refused("has no token ids", [{"x": 1}], **own)
    refused("input_ids of item 0 are .* of float32", [{"input_ids": [0.5]}], **own)
    refused("a mask of 1 for 2 tokens", [{"input_ids": [1, 2], "attention_mask": [1]}], **own)
    refused("none of 1 items has an answer", [{"input_ids": [7, 7, 7]}], **own)
    with pytest.raises(kdmesh.MeshError, match="a module is asked about numbers"):
        kdmesh.targets(items, torch.nn.Linear(2, 2), store=store)
    assert items[0]["input_ids"] == filled.items("sentences")[0]["input_ids"]


def test_a_batch_without_a_mask_or_cut_is_refused() -> None:
    items = [{"input_ids": [1, 2], "targets": torch.zeros(2, 3), "target_units": torch.tensor([0, 1])}]
    for base, said in (
        (lambda given: {"input_ids": torch.tensor([[1, 2]])}, "no `attention_mask`"),
        (lambda given: {"attention_mask": torch.tensor([[1]])}, "a text of 1 tokens in the batch"),
    ):
        with pytest.raises(kdmesh.MeshError, match=said):
            kdmesh.TargetsCollator(base)(items)
    with pytest.raises(kdmesh.MeshError, match="found int"):
        kdmesh.TargetsCollator(3)  # type: ignore[arg-type]
