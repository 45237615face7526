"""Samples that are forgotten: every place that one reached is named, and afterwards holds nothing of it.

The referee knows nothing of how kdmesh looks: it reads every byte of the run's folder and of the store, whatever wrote
it, for the sample in every form in which a program may write it.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from kdmesh.cli import main
from kdmesh.contracts.run_files import FORGOTTEN, INTENT
from kdmesh.engine.beginning import begun_from
from kdmesh.engine.experiment import Experiment
from kdmesh.engine.forgetting import places, removing
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.source import Source
from kdmesh.plugins import registry
from kdmesh.privacy import keys
from kdmesh.spec.read import parse, read_mesh
from kdmesh.streams.contents import digests

ROW = 9
TOWN = "Quodlibetville"
UNIQUE = "quodlibet-4711@mail.example.org"
GPT = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 96}
BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16}  # fmt: skip


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDMESH_PERSONAL_KEY", raising=False)
    monkeypatch.delenv("KDMESH_STORE", raising=False)


class Referee:
    """Searches files byte by byte for what a sample is: texts, and numbers as bytes and in decimals."""

    def __init__(self, *known: str | bytes) -> None:
        self.known: set[bytes] = set()
        for one in known:
            raw = one.encode() if isinstance(one, str) else one
            self.known |= {raw, base64.b64encode(raw), base64.b64encode(raw)[:-4], raw.hex().encode()}
            if isinstance(one, str):
                self.known |= {json.dumps(one)[1:-1].encode(), one.encode("utf-16-le"), one.encode("utf-32-le")}

    def finds(self, *roots: Path) -> set[Path]:
        """Every file that has any of it, also packed."""
        return {path for root in roots for path in root.rglob("*") if path.is_file() and self._in(path.read_bytes())}

    def _in(self, content: bytes) -> bool:
        return any(one in part for part in unpacked(content) for one in self.known)


def unpacked(content: bytes) -> Iterator[bytes]:
    """Some bytes as they are, and what is packed in them."""
    yield content
    if content[:2] == b"\x1f\x8b":
        yield from unpacked(gzip.decompress(content))
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            for name in file.namelist():
                yield from unpacked(file.read(name))
    if content[:6] == b"ARROW1":
        import pyarrow as pa

        for column in pa.ipc.open_file(content).read_all().columns:
            for chunk in column.chunks:
                yield from (bytes(buffer) for buffer in chunk.buffers() if buffer is not None)


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = main(["forget", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def ids(folder: Path, *rows: object) -> Path:
    path = folder / "ids.txt"
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def named(record: dict[str, Any], path: Path, root: Path, store: Path) -> bool:
    """Whether a file, or a folder that it is in, was named."""
    if path.is_relative_to(store):
        return any(one["entry"] in path.parts for one in record["store"])
    below = path.relative_to(root).as_posix()
    every = [one["path"] for one in (*record["places"], *record["retrain"])]
    return any(below == one or below.startswith(f"{one}/") for one in every)


def removed(record: dict[str, Any], path: Path, root: Path, store: Path) -> bool:
    """Whether a file was to hold nothing afterwards."""
    below = path.relative_to(root).as_posix() if path.is_relative_to(root) else ""
    stays = [one["path"] for one in (*record["places"], *record["retrain"]) if not one.get("removable")]
    return path.is_relative_to(store) or not any(below == one or below.startswith(f"{one}/") for one in stays)


# ---- a text run: a writer, what it wrote, and a student of that


def written_mesh(root: Path, **more: Any) -> dict[str, Any]:
    rows = [{"prompt": f"question {number} of many?", "text": f"answer {number * 7 % 5}"} for number in range(24)]
    rows[ROW]["prompt"] = f"what did {UNIQUE} ask?"
    (root / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    model = {"hf": {"config": GPT, "tokenizer": {"characters": {}}, "max_length": 90}}
    return {
        "name": "asked",
        "task": "language_modelling",
        "data": {"dataset": {"text": {"path": str(root / "asked.jsonl"), "prompt": "prompt"}}, "test": 6,
                 "validation": 0, "seed": 1},
        "agents": {"t": {"model": model, "update": "frozen"}, "s": {"model": model}},
        "streams": {"made": {"generated_by": "t", "prompts": "train", "refresh": "once",
                             "sampling": {"max_new_tokens": 4}}},
        "flows": [{"from": "labels", "to": "s", "objective": "ce", "stream": "made"},
                  {"from": "t", "to": "s", "objective": "kl", "stream": "made"}],
        "train": {"epochs": 2, "batch_size": 6},
        **more,
    }  # fmt: skip


def run(fields: dict[str, Any], out: Path, store: Path) -> Path:
    run_once(Request(parse(fields), "inline", out=out, store=str(store), checkpoint_seconds=0))
    (folder,) = (out / fields["name"]).iterdir()
    return Path(folder)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``runs`` and ``store`` of a text run, its page and its data."""
    root = tmp_path_factory.mktemp("texts")
    fields = written_mesh(root)
    folder = run(fields, root / "runs", root / "store")
    assert main(["report", str(folder)]) == 0
    with (folder / "events.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps({"event": "note", "t": 0.0, "text": f"odd: 'what did {UNIQUE} ask?'"}) + "\n")
    return root


def copied(root: Path, to: Path) -> tuple[Path, Path]:
    shutil.copytree(root, to, dirs_exist_ok=True)
    (folder,) = (to / "runs").glob("*/*")
    return folder, to / "store"


def test_all_that_a_text_reached_is_named_and_then_gone(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, store = copied(texts, tmp_path)
    referee = Referee(UNIQUE)
    before = referee.finds(root, store)
    assert {path.name for path in before} >= {"made.jsonl", "events.jsonl"}
    wanted = ids(tmp_path, ROW)
    code, dry = told(capsys, root, "--ids", wanted, "--store", store)
    assert code == 0 and referee.finds(root, store) == before
    assert [one for one in before if not named(dry, one, root, store)] == []
    code, record = told(capsys, root, "--ids", wanted, "--store", store, "--remove")
    assert code == 0 and record["places"] == dry["places"]
    assert [one for one in referee.finds(root, store) if removed(record, one, root, store)] == []
    assert {one["path"] for one in record["retrain"]} == {"agents/s", "agents/t"}  # t: its letters are of train
    assert not (root / "checkpoints").exists() and not (root / "report.html").exists()
    assert main(["verify", str(root)]) == 0
    assert "1 sample was forgotten on" in capsys.readouterr().out
    lines = [json.loads(one) for one in (root / "streams/made.jsonl").read_text().splitlines()]
    assert len(lines) == 17 and ROW not in [one["sample"] for one in lines]
    assert main(["resume", str(root)]) == 2 and "forgotten" in capsys.readouterr().err
    _, again = told(capsys, root, "--ids", wanted, "--store", store)
    assert again["store"] == [] and not [one for one in again["places"] if one["removable"]]


# ---- a table: two seeds with controls, columns, what is prepared, and a teacher whose answers are in the store


def table_mesh(root: Path) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=draw)
    x[ROW] = torch.tensor([9.73120117, -0.41869354, 1.2345679, 0.98765433])
    lines = ["a,b,c,d,town,who,label"]
    for number, row in enumerate(x):
        town, who = (TOWN, f"p{number:03d}-unique") if number == ROW else (f"t{number % 3}", f"p{number:03d}-other")
        numbers = [repr(float(one)) for one in row]
        lines.append(",".join([*numbers, town, who, "no" if row[0] < 0 else "yes"]))
    (root / "points.csv").write_text("\n".join(lines), encoding="utf-8")
    model = {"mlp": {"hidden": [6]}}
    return {
        "name": "points",
        "data": {"dataset": {"csv": {"path": str(root / "points.csv"), "label": "label",
                                     "features": ["a", "b", "c", "d", "town"]}},
                 "test": 0.3, "validation": 0, "prepare": [{"columns": "numbers", "scale": "minmax"},
                             {"columns": ["town"], "encode": "one_hot", "unseen": "ignore"}]},
        "agents": {"t": {"model": model}, "s": {"model": model}},
        "flows": [{"from": "labels", "to": "t", "objective": "ce"},
                  {"from": "labels", "to": "s", "objective": "ce"},
                  {"from": "t", "to": "s", "objective": "kl", "refresh": "once"}],
        "train": {"epochs": 2, "batch_size": 16},
    }  # fmt: skip


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``runs`` and ``store`` of a run of two seeds with controls, and its data."""
    root = tmp_path_factory.mktemp("points")
    request = Request(
        parse(table_mesh(root)), "inline", out=root / "runs", store=str(root / "store"), seeds=2, controls=True
    )
    Experiment(request).run()
    return root


def row_in(folder: Path, split: str) -> tuple[int, torch.Tensor, torch.Tensor]:
    """A sample of a split, its values as a model is given them, and as the data have them."""
    plan = make_plan(read_mesh(folder / "resolved.yaml"), registry())
    table, streams = Source().load(plan)
    row = ROW if split == "train" else int(streams[split].rows[0])
    assert row in streams[split].rows.tolist() and table.known is not None
    return row, table.x[row : row + 1], table.known[row]


@pytest.mark.parametrize("split", ["train", "test"])
def test_all_that_a_row_of_a_table_reached_is_named_and_then_gone(
    points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    root, store = copied(points, tmp_path)
    row, given, raw = row_in(root, split)
    numbers = [np.array(float(one), kind).tobytes() for one in raw[:4] for kind in ("<f4", "<f8")]
    own = [f"p{row:03d}-unique", TOWN] if row == ROW else [f"p{row:03d}-other"]
    decimals = [repr(float(one)) for one in raw[:4]]
    referee = Referee(*numbers, *decimals, *own, digests(given)[0].numpy().tobytes(), given.numpy().tobytes())
    before = referee.finds(root, store)
    assert any(path.is_relative_to(store) for path in before) == (split == "train")  # by which the teacher taught
    wanted = ids(tmp_path, row)
    _, dry = told(capsys, root, "--ids", wanted, "--store", store)
    assert referee.finds(root, store) == before
    assert [one for one in before if not named(dry, one, root, store)] == []
    _, record = told(capsys, root, "--ids", wanted, "--store", store, "--remove")
    assert [one for one in referee.finds(root, store) if removed(record, one, root, store)] == []
    for file in root.rglob("answers.safetensors"):
        left = load_file(file)["ids"].tolist()
        assert row not in left and len(left) == (17 if split == "test" else 18)
    retrain = {one["path"] for one in record["retrain"]}
    every = {f"{part}agents/{name}" for part in ("seeds/0/", "seeds/1/") for name in ("t", "s")}
    every |= {f"{one.relative_to(root).as_posix()}" for one in root.glob("seeds/*/controls/*/agents/*")}
    assert len(every) > 4 and retrain == (every if split == "train" else set())
    assert main(["verify", str(root)]) == 0


def test_other_samples_stay_in_the_store(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run forwards what was forgotten, and nothing else."""
    root, store = copied(points, tmp_path)
    told(capsys, root, "--ids", ids(tmp_path, ROW), "--store", store, "--remove")
    fields = {**table_mesh(points), "name": "again"}
    summary, _, _ = run_once(Request(parse(fields), "inline", store=str(store)))
    assert summary["store"]["agents"]["t"]["forwarded"] == 1


def test_an_id_of_no_sample_is_named_and_nothing_is_done(
    points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, store = copied(points, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for given, more, said in (
        (["3", "60", "-1", "x"], [], "3 ids are of no sample: '60', '-1', 'x'"),
        (["p003-other", "p999"], ["--column", "who"], "1 id is of no sample: 'p999'"),
        (["1"], ["--column", "nobody"], "no column 'nobody' is kept"),
        ([], [], "names no sample"),
    ):
        wanted = ids(tmp_path, *given)
        assert main(["forget", str(root), "--ids", str(wanted), "--store", str(store), "--remove", *more]) == 2
        assert said in capsys.readouterr().err
        wanted.unlink()
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_column_names_samples(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, store = copied(points, tmp_path)
    _, by_number = told(capsys, root, "--ids", ids(tmp_path, ROW), "--store", store)
    wanted = ids(tmp_path, f"p{ROW:03d}-unique")
    assert told(capsys, root, "--ids", wanted, "--column", "who", "--store", store)[1] == by_number


def test_a_file_that_the_run_did_not_write_is_not_given_a_sum(
    points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, store = copied(points, tmp_path)
    row, *_ = row_in(root, "test")
    file = next(root.rglob("answers.safetensors"))
    file.write_bytes(file.read_bytes().replace(b"accuracy", b"accurate", 1))
    (root / INTENT).unlink(missing_ok=True)
    assert main(["forget", str(root), "--ids", str(ids(tmp_path, row)), "--store", str(store), "--remove"]) == 2
    assert "is not what the run wrote, and nothing was changed" in capsys.readouterr().err
    assert not (root / INTENT).exists() and not (root / FORGOTTEN).exists()


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_removal_that_was_killed_goes_on(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    root, store = copied(texts, tmp_path)
    wanted, calls = ids(tmp_path, ROW), 0

    def dies(call: Any) -> Any:
        def mortal(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == after:
                raise KeyboardInterrupt
            return call(*arguments)

        return mortal

    with monkeypatch.context() as patch:
        patch.setattr(places, "write", dies(places.write))
        patch.setattr(places, "rmtree", dies(places.rmtree))
        for name in ("take_out", "_keep", "_mend"):
            patch.setattr(removing, name, dies(getattr(removing, name)))
        assert main(["forget", str(root), "--ids", str(wanted), "--store", str(store), "--remove"]) == 130
    capsys.readouterr()
    assert main(["verify", str(root)]) == 1 and INTENT in capsys.readouterr().out
    assert main(["resume", str(root)]) == 2
    capsys.readouterr()
    other = ids(tmp_path, 1)  # goes on with what was begun, too
    _, record = told(capsys, root, "--ids", other, "--store", store, "--remove")
    assert record["samples"] == 2 and not (root / INTENT).exists()
    assert [one for one in Referee(UNIQUE).finds(root, store) if removed(record, one, root, store)] == []
    assert main(["verify", str(root)]) == 0


def test_runs_that_began_with_it_are_named(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, store = copied(points, tmp_path)
    began, _ = begun_from(parse({**table_mesh(points), "name": "later"}), root / "seeds/0", "--from")
    run_once(Request(began, "inline", out=tmp_path / "runs", store="off"))
    fields = {**table_mesh(points), "name": "apart"}
    fields["data"]["train"] = 20
    run_once(Request(parse({**fields, "agents": {**fields["agents"]}}), "inline", out=tmp_path / "runs", store="off"))
    row, *_ = row_in(root, "train")
    _, record = told(capsys, root, "--ids", ids(tmp_path, row), "--store", store)
    found = {Path(one["path"]).parent.name: one for one in record["runs"]}
    assert found["later"]["why"].startswith("began with weights of") and found["later"]["agents"] == [
        "agents/s",
        "agents/t",
    ]
    apart = row_learned(next((tmp_path / "runs/apart").iterdir()), row)
    assert ("apart" in found) == apart


def row_learned(folder: Path, row: int) -> bool:
    plan = make_plan(read_mesh(folder / "resolved.yaml"), registry())
    return row in Source().load(plan)[1]["train"].rows.tolist()


def test_a_log_that_is_signed_is_signed_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.create(tmp_path / "key")
    monkeypatch.setenv("KDMESH_PERSONAL_KEY", str(tmp_path / "key"))
    fields = written_mesh(tmp_path)
    fields["data"]["personal"] = {"action": "pseudonymise", "find": ["email"]}
    root, store = run(fields, tmp_path / "runs", tmp_path / "store"), tmp_path / "store"
    assert f'"row": {ROW}' in (root / "personal.jsonl").read_text()
    monkeypatch.delenv("KDMESH_PERSONAL_KEY")
    wanted = ids(tmp_path, ROW)
    assert main(["forget", str(root), "--ids", str(wanted), "--store", str(store), "--remove"]) == 2
    assert "KDMESH_PERSONAL_KEY" in capsys.readouterr().err and not (root / INTENT).exists()
    monkeypatch.setenv("KDMESH_PERSONAL_KEY", str(tmp_path / "key"))
    told(capsys, root, "--ids", wanted, "--store", store, "--remove")
    assert f'"row": {ROW}' not in (root / "personal.jsonl").read_text()
    assert main(["personal", "verify", str(root)]) == 0
    (line,) = removing.told(root)
    secret = keys.load(tmp_path / "key")
    assert line["tags"] == [secret.tag(str(ROW).encode(), removing.ABOUT)] and line["samples"] == 1
