"""A trained agent's folder, copied away, is asked of files and values: its answers are those of its run."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import kdmesh
from kdmesh.cli import main
from kdmesh.cli.predict import progress
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.spec.read import parse

ARCHITECTURE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TOKENS = {"tokenizer": {"bpe": {"vocabulary": 300}}, "max_length": 48}
BERT = {"hf": {"config": {"model_type": "bert", "max_position_embeddings": 48, **ARCHITECTURE}, **TOKENS}}
GPT = {"hf": {"config": {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 48}, **TOKENS}}
TRAIN = {"steps": 3, "batch_size": 16}


def table(path: Path, rows: int, seed: int) -> Path:
    """Two features, a column of words, and every kind of label."""
    drawn = torch.Generator().manual_seed(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["a", "b", "site", "way", "up", "left", "sum", "words", "other"])
        for a, b in torch.randn(rows, 2, generator=drawn).tolist():
            way = "up" if a + b > 0 else "down, or left" if a > 0 else "down"
            words, other = f"it goes {way} by {abs(a):.1f}", f"and {b:.1f}"
            out.writerow([a, b, "xyz"[int(abs(a) * 10) % 3], way, int(a > 0), int(b > 0), a + 2 * b, words, other])
    return path


FORMS: dict[str, Any] = {
    "classes": ({}, {"csv": {"label": "way", "features": ["b", "a"]}}, {"mlp": {"hidden": [8]}}),
    "values": ({"task": "regression"}, {"csv": {"values": ["sum", "b"], "features": ["a"]}}, {"mlp": {"hidden": [8]}}),
    "indicators": (
        {"task": "multi_label"},
        {"csv": {"indicators": ["up", "left"], "features": ["a", "b"]}},
        {"mlp": {"hidden": [8]}},
    ),
    "texts": ({}, {"text": {"text": "words", "label": "way"}}, BERT),
    "pairs": ({}, {"text": {"text": "words", "pair": "other", "label": "way"}}, BERT),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files")
    table(root / "train.csv", 90, 0)
    table(root / "test.csv", 41, 1)
    return root


def trained(mesh: dict[str, Any], out: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of the student's folder, and its figures on test."""
    mesh = {"name": "m", "train": TRAIN, **mesh}
    run_once(Request(parse(mesh), out=out, backend="inline"))
    found = next(out.glob("*/*/agents")).parent
    shutil.copytree(found / "agents" / "s", out / "copied")
    summary = json.loads((found / "summary.json").read_text(encoding="utf-8"))
    shutil.rmtree(found)
    return out / "copied", summary["agents"]["s"]["metrics"]["test"]


@pytest.fixture(scope="module", params=list(FORMS))
def agent(request: pytest.FixtureRequest, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    more, data, model = FORMS[request.param]
    ((kind, settings),) = data.items()
    paths = {"path": str(files / "train.csv"), "test_path": str(files / "test.csv")}
    mesh = {**more, "data": {"dataset": {kind: {**paths, **settings}}}, "agents": {"s": {"model": model}}}
    return request.param, *trained(mesh, tmp_path_factory.mktemp(request.param))


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([*map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_its_figures_on_the_test_file_are_those_of_its_run(agent: Any, files: Path, capsys: Any) -> None:
    _, folder, figures = agent
    found = json.loads(told(capsys, "evaluate", folder, files / "test.csv", "--json", "--quiet"))["figures"]
    assert found == figures and len(found) > 1


def test_its_answers_are_what_it_was_measured_by(agent: Any, files: Path, tmp_path: Path, capsys: Any) -> None:
    form, folder, figures = agent
    out, more = tmp_path / "out.csv", ["--probabilities"] if form != "values" else []
    assert "41 answers of s in" in told(capsys, "predict", folder, files / "test.csv", "--out", out, *more)
    with out.open(newline="", encoding="utf-8") as file, (files / "test.csv").open(newline="", encoding="utf-8") as own:
        answers, rows = list(csv.DictReader(file)), list(csv.DictReader(own))
    assert [one["line"] for one in answers] == [str(line) for line in range(2, 43)]
    if form == "values":
        error = [
            float(one[name]) - float(row[name]) for one, row in zip(answers, rows, strict=True) for name in ("sum", "b")
        ]
        assert sum(one * one for one in error) / len(error) == pytest.approx(figures["mse"], rel=1e-5)
    elif form == "indicators":
        assert all((float(one["p_up"]) > 0.5) == (one["up"] == "1") for one in answers)
    else:
        assert sum(one["label"] == row["way"] for one, row in zip(answers, rows, strict=True)) / 41 == pytest.approx(
            figures["accuracy"]
        )
        assert all(
            sum(float(one[name]) for name in one if name.startswith("p_")) == pytest.approx(1) for one in answers
        )


def test_python_gives_the_same_answers(agent: Any, files: Path) -> None:
    form, folder, _ = agent
    model = kdmesh.load(folder)
    with (files / "test.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found, one = model.predict(rows), model.predict(rows[3:4])
    assert len(found) == 41 and one.answers == found.answers[3:4] and torch.equal(one.scores, found.scores[3:4])
    assert found.rows()[3] == one.rows()[0]
    if form in ("classes", "indicators"):
        names = {"classes": ("b", "a"), "indicators": ("a", "b")}[form]
        x = torch.tensor([[float(row[name]) for name in names] for row in rows])
        assert torch.equal(model.predict(x).scores, found.scores)
        assert torch.equal(model.predict(x.numpy()).scores, found.scores)
    if form == "texts":
        assert model.predict([row["words"] for row in rows]).answers == found.answers
    assert not len(model.predict([]))
    model.train()
    next(model.children()).eval()  # as a norm that is frozen
    modes = [part.training for part in model.modules()]
    assert torch.equal(model.predict(rows).scores, found.scores)
    assert [part.training for part in model.modules()] == modes and len({*modes}) == 2


def test_every_form_of_file_gives_the_same(agent: Any, files: Path, tmp_path: Path, capsys: Any) -> None:
    form, folder, _ = agent
    more = [] if form == "values" else ["--top", 2]
    with (files / "test.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {name: float(row[name]) for name in ("a", "b", "sum")}  # type: ignore[dict-item]
    lines = tmp_path / "test.jsonl.gz"
    lines.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    plain = told(capsys, "predict", folder, files / "test.csv", *more).splitlines()
    other = told(capsys, "predict", folder, lines, *more).splitlines()
    assert [one.split(",", 1)[1] for one in plain] == [one.split(",", 1)[1] for one in other]
    out = tmp_path / "out.jsonl"
    told(capsys, "predict", folder, lines, "--out", out)
    assert len(out.read_text(encoding="utf-8").splitlines()) == 41


def test_figures_by_a_column(agent: Any, files: Path, capsys: Any) -> None:
    _, folder, _ = agent
    said = told(capsys, "evaluate", folder, files / "test.csv", "--by", "site")
    assert "s on 41 samples of test.csv" in said and "worst" in said
    rows = [int(line.split()[-2].replace(",", "")) for line in said.splitlines() if line.endswith(" rows")]
    assert len(rows) == 3 and sum(rows) == 41


def test_images_are_read_as_they_were_learned(tmp_path: Path, capsys: Any) -> None:
    pixels = torch.randint(0, 256, (64, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(64, dtype=torch.uint8) % 3
    (folder := tmp_path / "idx").mkdir()
    for name, rows in (("train", slice(0, 48)), ("t10k", slice(48, 64))):
        head = struct.pack(">4B3I", 0, 0, 8, 3, len(y[rows]), 6, 6)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + pixels[rows].numpy().tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">4BI", 0, 0, 8, 1, len(y[rows])) + y[rows].numpy().tobytes()
        )
    mesh = {"data": {"dataset": {"idx": {"folder": str(folder)}}}, "agents": {"s": {"model": {"mlp": {"hidden": [8]}}}}}
    agent, figures = trained(mesh, tmp_path)
    np.save(tmp_path / "x.npy", pixels[48:].unsqueeze(1).numpy())
    np.save(tmp_path / "f.npy", (pixels[48:].unsqueeze(1).float() / 255).numpy())
    sources = (folder / "t10k-images-idx3-ubyte", tmp_path / "x.npy", tmp_path / "f.npy")
    idx, raw, scaled = (told(capsys, "predict", agent, one) for one in sources)
    assert idx == raw == scaled
    labels = [line.split(",")[1] for line in idx.splitlines()[1:]]
    assert sum(int(one) == int(two) for one, two in zip(labels, y[48:], strict=True)) / 16 == figures["accuracy"]
    with pytest.raises(MeshError, match=r"found shape \[2, 36\]"):
        kdmesh.load(agent).predict(torch.zeros(2, 36))


def test_a_language_model_answers_prompts(tmp_path: Path, capsys: Any) -> None:
    lines = [json.dumps({"q": f"{a}+{b}=", "a": str(a + b)}) for a in range(6) for b in range(6)]
    (tmp_path / "qa.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "q.txt").write_text("1+2=\n5+5=\n", encoding="utf-8")
    data = {"text": {"path": str(tmp_path / "qa.jsonl"), "prompt": "q", "text": "a"}}
    mesh = {"task": "language_modelling", "data": {"dataset": data}, "agents": {"s": {"model": GPT}}}
    agent, _ = trained(mesh, tmp_path / "out")
    found = told(capsys, "predict", agent, tmp_path / "q.txt", "--tokens", 4).splitlines()
    assert found[0] == "line,text" and len(list(csv.reader(found))) == 3
    model = kdmesh.load(agent)
    said = model.predict(["1+2=", "5+5="], most=4)
    assert said.answers == model.predict([{"q": "1+2="}, {"q": "5+5="}], most=4).answers
    assert [row["text"] for row in csv.DictReader(found)] == said.answers and said.scores is None
    inputs = model.tokenizer("1+2=", add_special_tokens=False, return_tensors="pt")
    begin = [] if model.encoder.begin is None else [model.encoder.begin]
    ids = torch.tensor([[*begin, *inputs.input_ids[0].tolist()]])
    own = model.model.net.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
    ends = own.tolist().index(model.tokenizer.eos_token_id) if model.tokenizer.eos_token_id in own else len(own)
    assert said.answers[0] == model.tokenizer.decode(own[:ends], skip_special_tokens=True)
    assert main(["predict", str(agent), str(tmp_path / "q.txt")]) == 2  # 64 tokens, of a model that reads 48
    said_of = capsys.readouterr().err
    assert "q.txt, line 1: a prompt of" in said_of and "--tokens 4" in said_of


@pytest.fixture(scope="module")
def small(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {"csv": {"path": str(files / "train.csv"), "label": "way", "features": ["a", "b"]}}
    mesh = {"data": {"dataset": data}, "agents": {"s": {"model": {"mlp": {"hidden": [4]}}}}}
    return trained(mesh, tmp_path_factory.mktemp("small"))[0]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("d.csv", "a,c\n1,2\n", "no column 'b', which s reads; it reads a, b"),
        ("d.csv", "c\n1\n", "no columns 'a', 'b', which s reads"),
        ("d.csv", "a,b\n1,2\n3,x\n", "column 'b', line 3: 'x' is not a finite number"),
        ("d.csv", "a,b\n1,nan\n", "'nan' is not a finite number"),
        ("d.csv", "", "d.csv"),
        ("d.csv", "a,b\n", "a header row and no data"),
        ("d.jsonl", '{"a": 1}\n', "no column 'b'"),
        ("d.txt", "one\n", "of no kind that is read"),
        ("d.npy", "no array", "d.npy"),
        ("d.xlsx", "x", "of no kind that is read"),
        ("d.csv", "a,b\n" + 500 * "x" + ",1\n", "'xxx"),
        ("d.jsonl", '{"a": 1, "a": 2, "b": 3}\n', "line 1: key 'a' stands twice"),
    ],
)
def test_what_is_no_sample_is_named(small: Path, tmp_path: Path, capsys: Any, name: str, text: str, what: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert main(["predict", str(small), str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert what in said and name in said and "instead" in said and len(said) < 600


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["predict", "{small}", "{files}/none.csv"], "no file"),
        (["predict", "{small}", "{files}"], "folder"),
        (["predict", "{files}", "{files}/test.csv"], "no config.json"),
        (["predict", "{small}", "{files}/test.csv", "--text", "words"], "reads no such column"),
        (["predict", "{small}", "{files}/test.csv", "--top", "0"], "--top"),
        (["predict", "{small}", "{files}/test.csv", "--top", "4"], "1 to 3: there are so many"),
        (["predict", "{small}", "{files}/test.csv", "--tokens", "4"], "writes no texts"),
        (["predict", "{small}", "{files}/test.csv", "--device", "meta"], "--device"),
        (["predict", "{small}", "{files}/test.csv", "--out", "{files}/test.csv"], "the file of samples itself"),
        (["predict", "{small}", "{files}/test.csv", "--out", ""], "without a suffix"),
        (["predict", "{small}", "{files}/test.csv", "--device", "cuda:7"], "--device"),
        (["predict", "{small}", "{files}/test.csv", "--device", "gpu"], "--device"),
        (["predict", "{small}", "{files}/test.csv", "--out", "x.xlsx"], "--out"),
        (["predict", "{small}", "{files}/test.csv", "--out", "{files}/none/x.csv"], "--out"),
        (["predict", "{small}", "{files}/test.csv", "--delimiter", ";;"], "one character"),
        (["predict", "{small}", "{files}/test.csv", "--delimiter", '"'], "a quote or a line break"),
        (["predict", "{small}", "{files}/test.csv", "--encoding", "zip"], "'zip' is no encoding of text"),
        (["evaluate", "{small}", "{files}/test.csv", "--by", "city"], "no column 'city'"),
        (["evaluate", "{small}", "{files}/test.csv", "--label", "site"], "'x' is not a class"),
    ],
)
def test_what_is_asked_wrongly_is_named(small: Path, files: Path, capsys: Any, words: list[str], what: str) -> None:
    assert main([word.format(small=small, files=files) for word in words]) == 2
    said = capsys.readouterr().err
    assert what in said and "Traceback" not in said


def test_csv_that_is_written_otherwise(small: Path, tmp_path: Path, capsys: Any) -> None:
    own, other, lines = tmp_path / "own.csv", tmp_path / "other.csv", tmp_path / "lines.jsonl"
    own.write_text("a,b,caf\xe9\n1,2,x\n3,-4,y\n", encoding="utf-8")
    other.write_text("a;b;caf\xe9\n1;2;x\n3;-4;y\n", encoding="latin-1")
    lines.write_text('{"a": 1, "b": 2}\n')
    expected = told(capsys, "predict", small, own)
    assert told(capsys, "predict", small, other, "--delimiter", ";", "--encoding", "latin-1") == expected
    assert told(capsys, "predict", small, own, "--encoding", "utf-8") == expected
    for words, what in (((other, "--delimiter", ";"), "other.csv"), ((lines, "--delimiter", ";"), "no CSV")):
        assert main(["predict", str(small), *map(str, words)]) == 2
        assert what in capsys.readouterr().err


def test_what_is_shown_meanwhile_ends_with_an_error_too(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(MeshError), progress(3, quiet=False) as told:
        told(1)
        raise MeshError("odd")
    shown = capsys.readouterr().err
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is there again"


def test_a_run_is_no_agent(made: Path, files: Path, capsys: Any) -> None:
    run = next((made / "small").iterdir())
    assert main(["predict", str(run), str(files / "test.csv")]) == 2
    said = capsys.readouterr().err
    assert "a run, of several agents" in said and str(Path("agents") / "s") in said


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        ({"a": 1}, "found one dict"),
        ("text", "found one str"),
        ([{"a": 1}], "row 0 has no 'b'"),
        ([{"a": 1, "b": "x"}], "'x' is no number"),
        ([{"a": 1, "b": float("inf")}], "not finite"),
        ([[1, 2, 3]], r"found shape \[1, 3\]"),
        (["words"], "predict"),
        (None, "predict"),
        (7, r"found shape \[\]"),
    ],
)
def test_values_that_are_no_samples_are_named(small: Path, samples: Any, what: str) -> None:
    with pytest.raises(MeshError, match=what):
        kdmesh.load(small).predict(samples)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent that learned images of whole numbers, 0 to 255."""
    folder = tmp_path_factory.mktemp("pixels")
    x = torch.randint(0, 256, (40, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name, count in (("train", 30), ("t10k", 10)):
        head = struct.pack(">4B3I", 0, 0, 8, 3, count, 4, 4)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + x[:count].numpy().tobytes())
        labels = struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(at % 2 for at in range(count))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(labels)
    mesh = {"data": {"dataset": {"idx": {"folder": str(folder)}}}, "agents": {"s": {"model": {"mlp": {"hidden": [4]}}}}}
    return trained(mesh, folder / "out")[0]


ARRAY = np.arange(5 * 16, dtype=np.uint8).reshape(5, 1, 4, 4)


def test_arrays_of_every_type_and_order_are_the_same_samples(pixels: Path, tmp_path: Path, capsys: Any) -> None:
    said = set()
    for number, array in enumerate(
        (
            ARRAY,
            np.asfortranarray(ARRAY),
            ARRAY.astype(">i8"),
            ARRAY.astype("u2"),
            ARRAY.astype(">f4"),
            (ARRAY / 255).astype(">f8"),
            (ARRAY / 255).astype("longdouble"),
        )
    ):
        np.save(path := tmp_path / f"{number}.npy", array)
        said.add(told(capsys, "predict", pixels, path))
        found = kdmesh.load(pixels).predict(array)
        assert found.answers == [row["label"] for row in csv.DictReader(said.copy().pop().splitlines())]
    (packed := tmp_path / "x.npy.gz").write_bytes(gzip.compress((tmp_path / "0.npy").read_bytes()))
    said.add(told(capsys, "predict", pixels, packed))
    assert len(said) == 1 and [line.split(",")[0] for line in said.pop().splitlines()] == ["row", *"01234"]


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (ARRAY[:0], "no samples"),
        (ARRAY.astype("i4") * 4, "row 4: a number beyond 0 to 255"),
        (ARRAY.astype("i4") - 1, "row 0: a number beyond 0 to 255"),
        (ARRAY / 50, "row 3: fractions beyond 0 to 1"),
        (np.where(ARRAY == 17, np.nan, ARRAY), "row 1: a number that is not finite"),
        (ARRAY[:, 0], "samples of shape [4, 4]"),
        (ARRAY.astype("c8"), "an array of complex64"),
        (np.array(["a"]), "an array of <U1"),
        (np.array([{}], dtype=object), "allow_pickle=False"),
    ],
)
def test_arrays_that_are_no_samples_are_named(pixels: Path, tmp_path: Path, capsys: Any, array: Any, what: str) -> None:
    np.save(path := tmp_path / "x.npy", array)
    assert main(["predict", str(pixels), str(path)]) == 2
    said = capsys.readouterr().err
    assert what in said and str(path) in said


def test_an_archive_under_the_name_of_an_array_is_named(pixels: Path, tmp_path: Path, capsys: Any) -> None:
    np.savez(tmp_path / "x.npz", x=ARRAY)
    path = (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    assert main(["predict", str(pixels), str(path)]) == 2
    assert "does not begin as a .npy file does" in capsys.readouterr().err


def test_lines_end_where_a_file_ends_them(agent: Any, tmp_path: Path, capsys: Any) -> None:
    form, folder, _ = agent
    if form != "texts":
        pytest.skip("of texts alone")
    (path := tmp_path / "x.txt").write_bytes("one\u2028two\x0cthree\x85four\r\nfive\n".encode())
    assert [line.split(",")[0] for line in told(capsys, "predict", folder, path).splitlines()] == ["line", "1", "2"]
    path.write_text("one\n\ntwo\n", encoding="utf-8")
    assert main(["predict", str(folder), str(path)]) == 2
    assert "x.txt, line 2: an empty text" in capsys.readouterr().err
    path.write_text("one\n" + 200 * "word " + "\n", encoding="utf-8")
    assert main(["predict", str(folder), str(path)]) == 0
    assert "of 1 of 2 texts, first in line 2, it read the beginning alone" in capsys.readouterr().err
    assert kdmesh.load(folder).predict(["one", 200 * "word "]).cut == (1,)


def test_labels_are_compared_with_what_was_learned(agent: Any, pixels: Path, tmp_path: Path, capsys: Any) -> None:
    form, folder, _ = agent
    (path := tmp_path / "x.csv").write_text("a,b,sum,up,left\n1,2,3,1,0\n", encoding="utf-8")
    if form == "values" or form == "indicators":
        assert main(["evaluate", str(folder), str(path), "--label", "a"]) == 2
        assert "answers 2 columns, not one" in capsys.readouterr().err
        for more in (["--top", "1"], ["--probabilities"]):
            assert main(["predict", str(folder), str(path), *more]) == (2 if form == "values" else 0)
    else:
        assert main(["evaluate", str(folder), str(path)]) == 2
        assert "x.csv: no column" in capsys.readouterr().err


def test_names_are_no_labels_of_who_learned_numbers(files: Path, tmp_path: Path, capsys: Any) -> None:
    data = {"csv": {"path": str(files / "train.csv"), "label": "up", "features": ["a", "b"]}}
    mesh = {"data": {"dataset": data}, "agents": {"s": {"model": {"mlp": {"hidden": [4]}}}}}
    folder = trained(mesh, tmp_path / "out")[0]
    (path := tmp_path / "x.csv").write_text("a,b,up\n1,2,yes\n", encoding="utf-8")
    assert main(["evaluate", str(folder), str(path)]) == 2
    said = capsys.readouterr().err
    assert "column 'up': 'yes' is not a number" in said and "0 to 1: it learned no names" in said


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("threads", 0, "threads"),
        ("precision", "fp64", "precision"),
        ("labels", ["up", "up", "up"], "labels"),
        ("labels", ["a", "b", "c", "d"], "labels"),
        ("class_numbers", [0, 1], "class_numbers"),
        ("reads", {"label": []}, "reads"),
        ("reads", {"label": ["way", "site"]}, "reads"),
        ("metrics", [5], "metrics"),
    ],
)
def test_a_damaged_folder_is_named(
    small: Path, files: Path, tmp_path: Path, capsys: Any, key: str, value: Any, where: str
) -> None:
    folder = shutil.copytree(small, tmp_path / "s")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {key: value}), encoding="utf-8")
    assert main(["evaluate", str(folder), str(files / "test.csv")]) == 2
    said = capsys.readouterr().err
    assert "damaged" in said and where in said and str(folder) in said


def test_a_column_that_would_stand_twice_is_named(files: Path, tmp_path: Path, capsys: Any) -> None:
    text = (files / "train.csv").read_text(encoding="utf-8").replace(",sum,", ",line,", 1)
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    data = {"csv": {"path": str(tmp_path / "x.csv"), "values": ["line"], "features": ["a", "b"]}}
    mesh = {"task": "regression", "data": {"dataset": data}, "agents": {"s": {"model": {"mlp": {"hidden": [4]}}}}}
    folder = trained(mesh, tmp_path / "out")[0]
    assert main(["predict", str(folder), str(tmp_path / "x.csv")]) == 2
    assert "two columns of the answers would be called 'line'" in capsys.readouterr().err
