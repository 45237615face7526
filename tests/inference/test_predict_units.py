"""Language models, tags and rankings out of an agent's folder: their run's own figures, and answers in words."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from test_predict import BERT, GPT, TOKENS, told, trained

import kdmesh
from kdmesh.builtin.datasets.digit_lists import digit_lists
from kdmesh.cli import main
from kdmesh.errors import MeshError
from kdmesh.inference import evaluating
from kdmesh.inference.inputs import Asked, read
from kdmesh.inference.trained import Trained
from kdmesh.streams.texts import Sample, Texts

T5 = {"hf": {"config": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2},
             **TOKENS}}  # fmt: skip
SUMS = [
    {"q": f"{a}+{b}=", "a": str(a + b), "no": f"{a - b}x", "site": "xyz"[a % 3], "long": f"{a} " * (1 + 3 * b)}
    for a in range(6)
    for b in range(6)
]
MEASURED = ["accuracy", "loss", "perplexity", "bits_per_character", "ece", "exact_match", "pair_accuracy"]
WROTE = {"decoding": {"max_new_tokens": 6}}
NAMES, PLACES = ("Ada", "Bob Lee", "Cyd"), ("Rome", "New Oslo")


def words(number: int) -> dict[str, Any]:
    """A text with marks, and a query with texts that are more or less relevant."""
    who, place = NAMES[number % 3], PLACES[number * 7 // 3 % 2]
    text = f"{who} went to {place}, by {number}."
    at = text.index(place)
    marks = [[0, len(who), "PER"], {"start": at, "end": at + len(place), "label": "LOC"}]
    return {
        "body": text,
        "marks": marks,
        "site": "xy"[number % 2],
        "ask": f"where is {place} {number}",
        "docs": [place, "nowhere", f"in {who}"][: 2 + number % 2],
        "rel": [2, 0, 1][: 2 + number % 2],
        "good": place,
        "bad": ["nowhere", who],
    }


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """``agents(name) -> (folder, figures on test, test file)``; each is made when first asked for."""
    root, made = tmp_path_factory.mktemp("agents"), dict[str, Any]()
    sums = lines(root / "sums.jsonl", SUMS[:24]), lines(root / "more.jsonl", SUMS[24:])
    marked = (
        lines(root / "marked.jsonl", [*map(words, range(40))]),
        lines(root / "last.jsonl", [*map(words, range(40, 53))]),
    )
    lm = {"task": "language_modelling", "text": WROTE}
    forms: dict[str, tuple[dict[str, Any], Any, Any, dict[str, Any]]] = {
        "answers": (lm | {"metrics": MEASURED}, GPT, sums, {"prompt": "q", "text": "a", "rejected": "no"}),
        "texts": ({"task": "language_modelling"}, GPT, sums, {"text": "q"}),
        "t5": (lm | {"metrics": ["loss", "rouge_l"]}, T5, sums, {"prompt": "q", "text": "a"}),
        "short": ({**lm, "text": {"max_length": 16, "over": "drop"}}, GPT, sums, {"text": "long"}),
        "short pairs": (
            {**lm, "text": {"max_length": 16, "over": "drop", **WROTE},
             "metrics": ["loss", "exact_match", "rouge_l", "pair_accuracy", "pair_margin"]},
            GPT, sums, {"prompt": "q", "text": "a", "rejected": "long"},
        ),
        "tags": ({"task": "token_classification", "train": {"steps": 60, "batch_size": 16}}, BERT, marked,
                 {"text": "body", "spans": "marks"}),
        "rated": ({"task": "ranking"}, BERT, marked, {"query": "ask", "candidates": "docs", "relevance": "rel"}),
        "told apart": ({"task": "ranking"}, BERT, marked, {"query": "ask", "positive": "good", "negative": "bad"}),
    }  # fmt: skip

    def agent(name: str) -> Any:
        if name not in made:
            more, model, (train, test), columns = forms[name]
            data = {"text": {"path": str(train), "test_path": str(test), **columns}}
            folder, figures = trained(
                {**more, "data": {"dataset": data}, "agents": {"s": {"model": model}}}, root / name
            )
            figures.pop("texts", None)  # what was written, beside the figures
            made[name] = folder, figures, test
        return made[name]

    return agent


def measured(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(told(capsys, "evaluate", *words, "--json", "--quiet"))["figures"]
    figures.pop("texts", None)
    return figures


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([*map(str, words)]) == 2
    said = capsys.readouterr().err
    assert "instead" in said
    return said


@pytest.mark.parametrize("name", ["answers", "texts", "t5", "short", "short pairs", "tags", "rated", "told apart"])
def test_figures_on_the_test_file_are_those_of_the_run(agents: Any, name: str, capsys: Any) -> None:
    folder, figures, test = agents(name)
    assert measured(capsys, folder, test) == figures and len(figures) > 1
    if name == "answers":
        assert set(figures) == set(MEASURED)


def test_all_that_is_measured_is_where_the_agent_computes(agents: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, which is not here, what stands elsewhere would fail."""
    folder, _, test = agents("answers")
    trained_, places = Trained.read(folder), dict[str, set[str]]()
    inputs, device = read(test, trained_, Asked(labelled=True)), torch.device("meta")
    monkeypatch.setattr(Trained, "device", device)
    monkeypatch.setattr(Trained, "scores", lambda self, x, *given, **more: torch.empty(9, 5, device=device))
    monkeypatch.setattr(evaluating, "measured_texts", lambda *given: [])

    def measure(found: Any, scores: Any, y: Any, **more: Any) -> dict[str, Any]:
        places["plain"] = {one.device.type for one in (y, more["characters"], *more["columns"].values())}
        return {}

    def of_answers(value: Any, texts: Any) -> torch.Tensor:
        places["pairs"] = {value.device.type, texts.device.type}
        return torch.zeros(len(texts), 2)

    monkeypatch.setattr(evaluating.metrics, "measure", measure)
    monkeypatch.setattr(evaluating.paired, "of_answers", of_answers)
    evaluating.evaluate(trained_, inputs, by=["site"])
    assert places == {"plain": {"meta"}, "pairs": {"meta"}}


def test_texts_that_the_run_dropped_are_left_out_and_told(agents: Any, capsys: Any) -> None:
    folder, _, test = agents("short")
    assert main(["evaluate", str(folder), str(test)]) == 0
    assert "are longer, and left out" in capsys.readouterr().err
    folder, _, test = agents("short pairs")
    short = lines(test.with_name("short.jsonl"), [{**row, "long": "0"} for row in SUMS[24:]])
    by = [measured(capsys, folder, one, "--by", "site")["bits_per_character_by_site"]["rows"] for one in (test, short)]
    assert sum(by[0].values()) < sum(by[1].values()), "what is left out counts nowhere"
    longer = [{**row, "a": "1" * 40} for row in SUMS]
    assert "all of its texts are longer than the 16 tokens" in refused(
        capsys, "evaluate", folder, lines(test.with_name("longer.jsonl"), longer)
    )


def test_bits_per_character_by_a_column_is_a_plain_sum(agents: Any, capsys: Any) -> None:
    folder, figures, test = agents("answers")
    found = measured(capsys, folder, test, "--by", "site")["bits_per_character_by_site"]
    model, nats, count = kdmesh.load(folder), dict[str, float](), dict[str, int]()
    for row in SUMS[24:]:
        sample = Sample(row["a"], prompt=row["q"])
        (own,) = model.encoder.encode(Texts([sample]))[0].samples()
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(model([sample]), torch.tensor(own.targets), reduction="sum")
        nats[row["site"]] = nats.get(row["site"], 0) + loss.item()
        count[row["site"]] = count.get(row["site"], 0) + len(row["a"])
    assert found["values"] == pytest.approx({one: nats[one] / math.log(2) / count[one] for one in nats}, rel=1e-5)
    whole = sum(found["values"][one] * count[one] for one in count) / sum(count.values())
    assert whole == pytest.approx(figures["bits_per_character"], rel=1e-6)


def test_a_mesh_measures_bits_per_character_by_a_column(tmp_path: Path, capsys: Any) -> None:
    paths = {
        "path": str(lines(tmp_path / "a.jsonl", SUMS[:24])),
        "test_path": str(lines(tmp_path / "b.jsonl", SUMS[24:])),
    }
    mesh = {
        "task": "language_modelling",
        "metrics": ["bits_per_character", {"bits_per_character": {"by": "site"}}],
        "data": {"dataset": {"text": {**paths, "prompt": "q", "text": "a"}}},
        "agents": {"s": {"model": GPT}},
    }
    folder, figures = trained(mesh, tmp_path / "out")
    found = measured(capsys, folder, paths["test_path"], "--by", "site")
    assert found["bits_per_character_by_site"] == figures["bits_per_character_by_site"]
    assert "measured with --by site" in found["undefined"]["bits_per_character_by_site"]


def test_pieces_of_a_file_are_measured_as_they_were_cut(tmp_path: Path, capsys: Any) -> None:
    whole = " ".join(map(str, range(400)))
    (tmp_path / "whole.txt").write_text(whole, encoding="utf-8")
    data = {"text_file": {"path": str(tmp_path / "whole.txt"), "characters": 40, "test": 0.25}}
    mesh = {"task": "language_modelling", "data": {"dataset": data}, "agents": {"s": {"model": GPT}}}
    folder, figures = trained(mesh, tmp_path / "out")
    count = -(-len(whole) // 40)
    (tmp_path / "last.txt").write_text(whole[40 * (count - round(0.25 * count)) :], encoding="utf-8")
    assert measured(capsys, folder, tmp_path / "last.txt") == figures


def test_what_measures_no_language_model_is_named(agents: Any, tmp_path: Path, capsys: Any) -> None:
    folder, _, test = agents("texts")
    assert "the tokens of texts themselves" in refused(capsys, "evaluate", folder, test, "--label", "site")
    assert "no column 'q'" in refused(capsys, "evaluate", folder, lines(tmp_path / "x.jsonl", [{"a": "1"}]))
    assert "writes what follows a prompt" in refused(capsys, "predict", folder, test)
    (tmp_path / "two.txt").write_text("1+2=\n\n", encoding="utf-8")
    assert "line 2: an empty text" in refused(capsys, "evaluate", folder, tmp_path / "two.txt")


@pytest.mark.parametrize("form", ["onnx", "torch_export", "int8"])
def test_the_exported_file_of_a_language_model_is_scored(agents: Any, form: str, tmp_path: Path, capsys: Any) -> None:
    folder, figures, test = agents("answers")
    said = told(capsys, "export", folder, "--to", form, "--data", test, "--out", tmp_path / form)
    scored = json.loads((tmp_path / form / "export.json").read_text(encoding="utf-8"))["scored"]
    own, agent = scored["exported"], {**scored["agent"]}
    agent.pop("texts")
    assert agent == figures and scored["samples"] == 12
    assert set(own) == {*MEASURED, "undefined"} - {"exact_match"}
    near = 1e-2 if form == "int8" else 1e-5
    assert all(own[name] == pytest.approx(figures[name], rel=near) for name in ("loss", "bits_per_character", "ece"))
    assert "exact_match: not scored: an exported file writes no texts" in said
    assert max(map(len, said.splitlines()[1:])) <= 80


def test_words_with_a_tag_are_spans(agents: Any, tmp_path: Path, capsys: Any) -> None:
    folder, figures, test = agents("tags")
    assert figures["accuracy"] > 0.9, "a tag that is never given would be no test"
    out = tmp_path / "out.jsonl"
    told(capsys, "predict", folder, test, "--out", out)
    answers = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    model = kdmesh.load(folder)
    rows = [words(number) for number in range(40, 53)]
    found = model.predict([row["body"] for row in rows])
    assert [[span._asdict() for span in spans] for spans in found.answers] == [one["spans"] for one in answers]
    assert [found.answers] == [model.predict(rows).answers] and len(model.predict([])) == 0
    at = 0
    for row, spans, count in zip(rows, found.answers, found.counts, strict=True):
        with torch.no_grad():
            own = model([row["body"]])
        assert torch.allclose(own, found.scores[at : at + count], atol=1e-6) and len(own) == count
        at += count
        for span in spans:
            assert row["body"][span.start : span.end].strip(".,") == row["body"][span.start : span.end]
        assert {span.label for span in spans} == {"PER", "LOC"}
    assert at == len(found.scores) == len(found.probabilities)
    lee = next(n for n, row in enumerate(rows) if row["body"].startswith("Bob Lee"))
    assert found.answers[lee][0][:3] == (0, 7, "PER"), "two words of one tag are one span"
    own = [{**row, "marks": one["spans"]} for row, one in zip(rows, answers, strict=True)]
    assert measured(capsys, folder, lines(tmp_path / "own.jsonl", own))["accuracy"] == 1.0, "answers are labels"


def test_spans_in_every_form_of_file(agents: Any, tmp_path: Path, capsys: Any) -> None:
    folder, _, test = agents("tags")
    (tmp_path / "a.txt").write_text("".join(words(number)["body"] + "\n" for number in range(40, 53)), encoding="utf-8")
    printed = list(csv.DictReader(told(capsys, "predict", folder, tmp_path / "a.txt").splitlines()))
    told(capsys, "predict", folder, test, "--out", tmp_path / "out.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [json.loads(one["spans"]) for one in printed] == [one["spans"] for one in rows]
    assert "has the probability of its tag" in refused(capsys, "predict", folder, test, "--probabilities")
    assert "reads spans too" in refused(capsys, "evaluate", folder, tmp_path / "a.txt")
    assert "no column 'other'" in refused(capsys, "evaluate", folder, test, "--label", "other")
    renamed = [{"body": row["body"], "other": row["marks"]} for row in map(words, range(40, 53))]
    again = lines(tmp_path / "b.jsonl", renamed)
    assert measured(capsys, folder, again, "--label", "other") == measured(capsys, folder, test)


def test_candidates_are_put_in_order(agents: Any, tmp_path: Path, capsys: Any) -> None:
    folder, _, test = agents("rated")
    rows = [words(number) for number in range(40, 53)]
    model = kdmesh.load(folder)
    found = model.predict(rows)
    for row, order, scores in zip(rows, found.answers, found.scores, strict=True):
        with torch.no_grad():
            own = model([Sample(row["ask"], candidates=tuple(row["docs"]))])[0]
        count = len(row["docs"])
        assert torch.allclose(own, scores[:count], atol=1e-6) and (scores[count:] == -torch.inf).all()
        assert sorted(order) == list(range(count)) and order == sorted(order, key=lambda one: -scores[one])
    printed = list(csv.DictReader(told(capsys, "predict", folder, test).splitlines()))
    assert [json.loads(one["order"]) for one in printed] == found.answers
    assert [int(one["best"]) for one in printed] == [order[0] for order in found.answers]
    (first, *_) = csv.DictReader(told(capsys, "predict", folder, test, "--top", 1).splitlines())
    assert json.loads(first["order"]) == found.answers[0][:1] and len(json.loads(first["scores"])) == 1
    assert "candidates have scores" in refused(capsys, "predict", folder, test, "--probabilities")
    longer = model.predict([{"ask": "where", "docs": ["a", "b", "c", "d", "e"]}])
    assert sorted(longer.answers[0]) == [0, 1, 2, 3, 4]
    with pytest.raises(MeshError, match="found a text alone"):
        model.predict(["where"])
    with pytest.raises(MeshError, match="row 0 has no texts 'docs'"):
        model.predict([{"ask": "where", "docs": []}])


def test_who_learned_positives_is_asked_candidates(agents: Any, tmp_path: Path, capsys: Any) -> None:
    folder, _, test = agents("told apart")
    assert "no column 'candidates'" in refused(capsys, "predict", folder, test)
    printed = list(csv.DictReader(told(capsys, "predict", folder, test, "--candidates", "docs").splitlines()))
    model = kdmesh.load(folder)
    rows = [{"ask": row["ask"], "candidates": row["docs"]} for row in map(words, range(40, 53))]
    assert [json.loads(one["order"]) for one in printed] == model.predict(rows).answers
    assert "where is" not in refused(capsys, "evaluate", folder, test, "--label", "rel")


def test_lists_of_vectors_are_arrays(tmp_path: Path, capsys: Any) -> None:
    model = {"bi_encoder": {"hidden": [8], "embedding": 4}}
    mesh = {"task": "ranking", "data": {"dataset": "digit_lists"}, "agents": {"s": {"model": model}}}
    folder, figures = trained(mesh, tmp_path)
    table = digit_lists()
    assert table.y is not None
    x, y = table.tensor[table.official["test"]], table.y[table.official["test"]]
    np.save(tmp_path / "x.npy", (x * 16).round().numpy().astype(np.uint8))
    np.save(tmp_path / "y.npy", y.numpy())
    assert measured(capsys, folder, tmp_path / "x.npy", "--labels", tmp_path / "y.npy") == figures
    loaded = kdmesh.load(folder)
    found = loaded.predict(x[:20])
    with torch.no_grad():
        assert torch.allclose(loaded(x[:20]), found.scores, atol=1e-5)
    assert loaded.predict(x[:20, :4]).scores.shape == (20, 3), "lists of any length"
    with pytest.raises(MeshError, match=r"found shape \[20, 9, 63\]"):
        loaded.predict(x[:20, :, 1:])
    np.save(tmp_path / "short.npy", y[:, :3].numpy())
    assert "shape [359, 3]" in refused(
        capsys, "evaluate", folder, tmp_path / "x.npy", "--labels", tmp_path / "short.npy"
    )
