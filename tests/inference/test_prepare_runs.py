"""Preparation is part of the agent: what a run fitted on train is applied to a user's raw files by a copied folder."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import kdmesh
from kdmesh.cli import main
from kdmesh.engine.check import check, examine
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.graph.planner import make_plan
from kdmesh.inference.predictor import Predictor
from kdmesh.plugins import registry
from kdmesh.spec.prepare import PrepareSpec
from kdmesh.spec.read import parse, read_mesh
from kdmesh.streams.cells import Cells
from kdmesh.streams.prepared import NUMBERS, SETTINGS, Prepared
from kdmesh.tables.fitting import fit
from kdmesh.tables.rows import number_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "tabular"
STUDENT = {"model": {"mlp": {"hidden": [4]}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, with a small table."""
    root = tmp_path_factory.mktemp("census")
    spec = importlib.util.spec_from_file_location("census", EXAMPLE / "census.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(root, rows=600)
    shutil.copy(EXAMPLE / "census.yaml", root)
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    run_once(Request(read_mesh(str(folder / "census.yaml"), ["train.epochs=2"]), out=folder / "runs", backend="inline"))
    return next((folder / "runs").glob("*/*"))


@pytest.fixture(scope="module")
def agent(run: Path, folder: Path) -> Path:
    """A copy of the student's folder, away from the run."""
    shutil.copytree(run / "agents" / "student", folder / "copied")
    return folder / "copied"


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([*map(str, words)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def saved(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    return path


def test_the_files_that_hold_it_stand_in_the_run_and_in_every_agent(run: Path, agent: Path) -> None:
    for one in (run, agent, run / "agents" / "wide"):
        assert (one / SETTINGS).read_bytes() == (run / SETTINGS).read_bytes()
        assert (one / NUMBERS).read_bytes() == (run / NUMBERS).read_bytes()
    made = Prepared.read(run)
    assert made is not None and made.fitted == 405 and made.columns[:3] == ["age", "workclass", "education"]
    assert len(made.outputs) == json.loads((agent / "config.json").read_text())["input_shape"][0]


def test_raw_files_give_the_figures_of_the_run(agent: Path, run: Path, folder: Path, capsys: Any) -> None:
    figures = json.loads((run / "summary.json").read_text(encoding="utf-8"))["agents"]["student"]["metrics"]["test"]
    found = json.loads(told(capsys, "evaluate", agent, folder / "census-test.csv", "--json", "--quiet"))["figures"]
    assert found == figures and {"accuracy", "auroc", "loss"} <= {*found}
    out = folder / "answers.csv"
    told(capsys, "predict", agent, folder / "census-test.csv", "--out", out, "--quiet")
    right = [
        one["label"] == row["income"]
        for one, row in zip(rows_of(out), rows_of(folder / "census-test.csv"), strict=True)
    ]
    assert sum(right) / len(right) == pytest.approx(figures["accuracy"])


def test_rows_from_python_are_answered_as_the_file_is(agent: Path, folder: Path, capsys: Any) -> None:
    model, rows = kdmesh.load(agent), rows_of(folder / "census-test.csv")
    found = model.predict(rows)
    out = folder / "again.csv"
    told(capsys, "predict", agent, folder / "census-test.csv", "--out", out, "--probabilities", "--quiet")
    assert found.answers == [one["label"] for one in rows_of(out)]
    typed = [
        {**row, "age": int(row["age"]), "workclass": None if row["workclass"] == "?" else row["workclass"]}
        for row in rows
    ]
    assert torch.equal(model.predict(typed).scores, found.scores)
    assert torch.equal(model.predict(rows[5:6]).scores, found.scores[5:6])
    for wrong, said in (
        ([{**rows[0], "education": "none at all"}], "row 0, 'education': 'none at all' is none of the 5"),
        ([{name: value for name, value in rows[0].items() if name != "hours"}], "row 0 has no 'hours'"),
        (torch.zeros(2, 7), "it reads words: "),
    ):
        with pytest.raises(MeshError, match=said):
            model.predict(wrong)


@pytest.mark.parametrize("words", [["True", "False"], ["true", "false"]])
def test_true_and_false_from_python_are_the_words_that_were_learned(words: list[str]) -> None:
    source = Cells({"w": words, "n": [2.0, 3.0]}, number_of, lambda row, name: name, "here")

    def asked(encode: dict[str, Any]) -> tuple[Predictor, Any]:
        groups = [PrepareSpec.model_validate({"columns": [name], **encode}) for name in ("w", "n")]
        made = fit(source, groups, "data.prepare")
        config = SimpleNamespace(agent="s", columns=made.columns)
        trained: Any = SimpleNamespace(prepared=made, personal=None, config=config)
        return Predictor(trained), made.of_cells(source)

    rows = [{"w": True, "n": np.float32(2)}, {"w": np.bool_(False), "n": 3}]
    predictor, wanted = asked({"encode": "one_hot", "unseen": "ignore"})
    assert torch.equal(predictor._numbers_of(rows), wanted) and wanted.sum(1).tolist() == [2, 2]
    with pytest.raises(MeshError, match=r"row 0, 'w': True, which it learned as a word"):
        asked({"encode": "hash", "outputs": 4})[0]._numbers_of(rows)


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("workclass", "pirate", "column 'workclass', line 3: 'pirate' is none of the 4 categories of train"),
        ("hours", "many", "column 'hours', line 3: 'many' is not a number"),
        ("hours", "inf", "column 'hours', line 3: 'inf' is not finite"),
        ("postcode", "", "column 'postcode', line 3: an empty cell"),
    ],
)
def test_cells_that_it_cannot_read_are_named(
    agent: Path, folder: Path, capsys: Any, column: str, cell: str, said: str
) -> None:
    rows = rows_of(folder / "census-test.csv")[:4]
    rows[1][column] = cell
    assert main(["predict", str(agent), str(saved(folder / "bad.csv", rows)), "--quiet"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    for row in rows:
        del row[column]
    assert main(["predict", str(agent), str(saved(folder / "less.csv", rows)), "--quiet"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"no column {column!r}, which" in said and "it reads age, " in said and "the file's columns: " in said


def mesh(folder: Path, prepare: Any, **more: Any) -> dict[str, Any]:
    data = {"dataset": {"csv": {"path": str(folder / "census.csv"), "label": "income"}}, "prepare": prepare}
    return {"name": "m", "data": data, "agents": {"s": STUDENT}, "train": {"steps": 2, "batch_size": 16}, **more}


def examined(given: dict[str, Any]) -> Any:
    return examine(make_plan(parse(given), registry()))


WHOLE = yaml.safe_load((EXAMPLE / "census.yaml").read_text(encoding="utf-8"))["data"]["prepare"]


def test_check_shows_the_first_sample_before_and_after(folder: Path) -> None:
    said = "\n".join(check(make_plan(parse(mesh(folder, WHOLE)), registry())))
    assert "prepared: 7 columns give " in said and "fitted on 324 samples of train" in said
    first = next(line for line in said.splitlines() if line.startswith("  the first of these: age="))
    after = next(line for line in said.splitlines() if line.startswith("  becomes: age="))
    assert "education='" in first and "workclass=" in after and "everything fits" in said


def test_an_agent_may_see_the_data_in_a_way_of_its_own(folder: Path, tmp_path: Path, capsys: Any) -> None:
    own = [
        {"columns": "numbers", "missing": "?", "impute": "mean"},
        {"columns": "categories", "missing": "?", "impute": "most_frequent", "encode": "ordinal"},
    ]
    agents = {"t": {**STUDENT, "prepare": own}, "follower": {"update": {"ema": {"of": "t"}}}, "s": STUDENT}
    given = mesh(folder, WHOLE, agents=agents, connect=[{"ensemble": {"teachers": ["t", "follower"], "student": "s"}}])
    given["data"]["dataset"]["csv"]["test_path"] = str(folder / "census-test.csv")
    run_once(Request(parse(given), out=tmp_path, backend="inline"))
    root = next(tmp_path.glob("*/*"))
    figures = json.loads((root / "summary.json").read_text(encoding="utf-8"))["agents"]
    for name in agents:
        made = Prepared.read(root / "agents" / name)
        assert made is not None and (len(made.outputs) == 7) == (name != "s")
        out = told(capsys, "evaluate", root / "agents" / name, folder / "census-test.csv", "--json", "--quiet")
        assert json.loads(out)["figures"] == figures[name]["metrics"]["test"]


def test_samples_are_known_again_however_they_are_prepared(folder: Path) -> None:
    """Of numbers keys are those of a mesh that prepares nothing; words and gaps count, scale does not."""
    chosen = {"dataset": {"csv": {"path": str(folder / "census.csv"), "label": "income", "features": ["age", "gain"]}}}
    plain = examined(mesh(folder, [], data=chosen)).table
    scaled = examined(mesh(folder, [], data={**chosen, "prepare": [{"columns": "numbers", "scale": "minmax"}]})).table
    assert torch.equal(plain.keys, scaled.keys) and plain.fingerprint == scaled.fingerprint
    assert not torch.equal(plain.x, scaled.x)
    one, two = (
        examined(mesh(folder, WHOLE, data={**mesh(folder, WHOLE)["data"], "seed": seed})).table for seed in (0, 1)
    )
    assert torch.equal(one.keys, two.keys) and not torch.equal(one.x, two.x)


@pytest.mark.parametrize("cell", ["inf", "forty"])
def test_a_cell_of_test_that_no_group_reads_is_told_at_the_group(folder: Path, cell: str) -> None:
    rows = rows_of(folder / "census-test.csv")
    path = saved(folder / "odd-test.csv", [{**row, "age": cell} if at == 3 else row for at, row in enumerate(rows)])
    given = mesh(folder, WHOLE)
    given["data"]["dataset"]["csv"]["test_path"] = str(path)
    with pytest.raises(MeshError, match=rf"odd-test.csv, column 'age', line 5: '{cell}' is not") as error:
        examined(given)
    assert error.value.where == "data.prepare.0"


def test_a_column_with_nothing_in_it_is_said(folder: Path, agent: Path, capsys: Any) -> None:
    rows = rows_of(folder / "census-test.csv")
    held = saved(folder / "empty-test.csv", [{**row, "age": "", "workclass": "?", "gain": ""} for row in rows])
    given = mesh(folder, WHOLE)
    given["data"]["dataset"]["csv"]["test_path"] = str(held)
    told_before = mesh(folder, WHOLE)
    told_before["data"]["dataset"]["csv"]["test_path"] = str(folder / "census-test.csv")
    assert not any("every cell" in note for note in examined(told_before).notes)
    found = examined(given)
    (note,) = [note for note in found.notes if "every cell" in note]
    made = found.table.prepared
    fills = {name: f"{made.groups[0].numbers['fill'][at]:g}" for at, name in enumerate(made.groups[0].columns)}
    assert note == (
        f"every cell of test is empty in age (filled with {fills['age']}), gain (filled with {fills['gain']}), "
        "workclass (none of its categories)"
    )
    assert main(["predict", str(agent), str(held), "--quiet"]) == 0
    said = capsys.readouterr().err
    assert said.count("note: ") == 1 and "empty-test.csv is empty in age (filled with " in said
    one = saved(folder / "one.csv", [{**rows[0], "age": ""}])
    assert main(["predict", str(agent), str(one), "--quiet"]) == 0 and not capsys.readouterr().err

    bare = saved(folder / "bare.csv", [{**row, "age": ""} for row in rows_of(folder / "census.csv")])
    given["data"]["dataset"]["csv"] |= {"path": str(bare), "test_path": str(folder / "census-test.csv")}
    table = examined(given).table
    assert table.left_out["age"] == "every cell of train is empty" and "age" not in table.sources
    given["data"]["prepare"] = [{"columns": ["age"], "impute": "median"}]
    with pytest.raises(MeshError, match=r"bare.csv, column 'age', line \d+: this and all \d+ cells of train are empty"):
        examined(given)


def test_what_says_the_label_is_named(folder: Path) -> None:
    rows = [{**row, "same": row["income"].upper()} for row in rows_of(folder / "census.csv")]
    path = saved(folder / "telling.csv", rows)
    given = mesh(folder, [{"columns": ["same"], "encode": "one_hot"}])
    given["data"]["dataset"]["csv"] |= {"path": str(path), "features": ["age", "same"]}
    notes = examined(given).notes
    assert "features that are the label, which is all that models will learn: same" in notes
    assert not any("features that are the label" in note for note in examined(mesh(folder, WHOLE)).notes)


@pytest.mark.parametrize(
    ("change", "said", "where"),
    [
        ({"data": {"dataset": "digits", "prepare": WHOLE[:1]}}, "have no columns", "data.prepare.0.columns"),
        (
            {
                "data": {"dataset": "diabetes", "prepare": [{"columns": "pixels", "scale": "standard"}]},
                "task": "regression",
            },
            "no images",
            "data.prepare.0",
        ),
        ({"data": {"dataset": "numerals", "prepare": WHOLE[:1]}}, "texts, which have tokenizers", "data.prepare"),
        (
            {
                "streams": {"mine": {"private": True}},
                "flows": [{"from": "labels", "to": "s", "stream": "mine", "objective": "ce"}],
            },
            "no sample that is not private",
            "data.prepare",
        ),
        ({"agents": {"s": STUDENT, "v": {"weights_of": "s", "prepare": []}}}, "weights of its own", "agents.v"),
    ],
)
def test_where_it_cannot_be(folder: Path, change: dict[str, Any], said: str, where: str) -> None:
    with pytest.raises(MeshError) as caught:
        examined(mesh(folder, WHOLE, **change))
    assert said in caught.value.what and caught.value.where.startswith(where)


def test_samples_of_a_mesh_are_those_of_its_agents(folder: Path) -> None:
    given = mesh(folder, WHOLE, agents={"s": STUDENT, "t": STUDENT | {"prepare": []}})
    given["data"]["dataset"]["csv"]["features"] = [
        "age",
        "gain",
        *(one for group in WHOLE[2:] for one in group["columns"]),
    ]
    given["data"]["prepare"] = [WHOLE[0], *WHOLE[2:]]
    given["agents"]["t"]["prepare"] = [{"columns": ["age"], "missing": "?", "impute": "mean"}, *WHOLE[2:]]
    made = kdmesh.Mesh(**{name: value for name, value in given.items() if name != "data"}, data=given["data"])
    x, y, names = made.samples()
    assert x.shape == (324, len(names)) and y is not None and y.shape == (324,) and names[0] == "age"
    other, same, _ = made.samples("train", agent="t")
    assert torch.equal(y, same) and not torch.equal(x[:, 0], other[:, 0]) and float(other[:, 0].min()) >= 17
    for wrong in ({"stream": "none"}, {"agent": "none"}):
        with pytest.raises(MeshError, match="no "):
            made.samples(**wrong)


def test_images_are_scaled_by_channel_and_predicted_from_raw_pixels(tmp_path: Path) -> None:
    data = {"dataset": "digits", "prepare": [{"columns": "pixels", "scale": "standard"}]}
    run_once(Request(parse(mesh(tmp_path, [], data=data)), out=tmp_path, backend="inline"))
    model = kdmesh.load(next(tmp_path.glob("*/*/agents/s")))
    raw = torch.randint(0, 17, (6, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.predict(raw).scores, model.predict(raw / 16).scores)
    mean, by = (model.predict.trained.prepared.groups[0].numbers[name] for name in ("shift", "by"))
    seen = ((raw / 16).double() - float(mean[0])) / float(by[0])
    assert torch.allclose(model(seen.float()), model.predict(raw).scores, atol=1e-5)


def test_images_of_files_are_prepared_as_the_run_prepared_them(tmp_path: Path, capsys: Any) -> None:
    image = pytest.importorskip("PIL.Image", reason="pip install kdmesh[images]")
    drawn = torch.Generator().manual_seed(0)
    for part, count in (("train", 24), ("test", 10)):
        for number in range(count):
            kind, where = ("dark", "light")[number % 2], tmp_path / part / ("dark", "light")[number % 2]
            where.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(*((0, 120) if kind == "dark" else (100, 256)), (6, 5), generator=drawn)
            image.fromarray(pixels.to(torch.uint8).numpy()).save(where / f"{number}.png")
    settings = {"path": str(tmp_path / "train"), "test_path": str(tmp_path / "test"), "lazy": False}
    data = {"dataset": {"images": settings}, "prepare": [{"columns": "pixels", "scale": "standard"}]}
    run_once(Request(parse(mesh(tmp_path, [], data=data)), out=tmp_path / "runs", backend="inline"))
    root = next((tmp_path / "runs").glob("*/*"))
    figures = json.loads((root / "summary.json").read_text(encoding="utf-8"))["agents"]["s"]["metrics"]["test"]
    said = told(capsys, "evaluate", root / "agents" / "s", tmp_path / "test", "--json", "--quiet")
    assert json.loads(said)["figures"] == figures
    with pytest.raises(MeshError, match="read when they are asked for"):
        examined(mesh(tmp_path, [], data={**data, "dataset": {"images": {**settings, "lazy": True}}}))


def test_other_values_in_validation_test_and_transfer_give_the_same_fit(folder: Path) -> None:
    given = mesh(folder, WHOLE)
    given["data"] |= {"transfer": 60}
    first = examined(given)
    rows, held = rows_of(folder / "census.csv"), {*range(450)} - {*first.streams["train"].rows.tolist()}
    assert len(held) == sum(len(first.streams[name].rows) for name in ("test", "validation", "transfer")) == 186
    for row in held:
        rows[row] |= {"age": str(row * 97), "hours": "?", "gain": "-5.5", "workclass": rows[row - 1]["workclass"]}
        rows[row] |= {"occupation": "clerk", "education": "doctorate", "postcode": str(7000 + row)}
    given["data"]["dataset"]["csv"]["path"] = str(saved(folder / "others.csv", rows))
    second = examined(given)
    assert torch.equal(first.streams["train"].rows, second.streams["train"].rows)
    assert first.table.prepared.files() == second.table.prepared.files()
    train = first.streams["train"].rows
    assert torch.equal(first.table.x[train], second.table.x[train]) and not torch.equal(first.table.x, second.table.x)


def test_json_lines_with_types_and_nulls_are_the_same_samples(agent: Path, folder: Path, capsys: Any) -> None:
    def typed(cell: str) -> Any:
        return None if cell == "?" else int(cell) if cell.isdigit() else cell

    for name in ("census", "census-test"):
        rows = [{column: typed(cell) for column, cell in row.items()} for row in rows_of(folder / f"{name}.csv")]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = mesh(folder, WHOLE)
    first = examined(given).table
    given["data"]["dataset"] = {"jsonl": {"path": str(folder / "census.jsonl"), "label": "income"}}
    assert torch.equal(examined(given).table.x, first.x)
    plain, typed_ = (
        told(capsys, "predict", agent, folder / f"census-test.{form}", "--quiet").splitlines()
        for form in ("csv", "jsonl")
    )
    assert [line.split(",", 1)[1] for line in plain] == [line.split(",", 1)[1] for line in typed_]
