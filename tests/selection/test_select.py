"""A small training set is chosen by what teachers say, and later meshes have it as a stream, of the same data alone."""

from __future__ import annotations

import json
import os
import pkgutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import kdmesh
from kdmesh.cli import main
from kdmesh.engine.check import examine
from kdmesh.engine.inputs import inputs
from kdmesh.errors import MeshError
from kdmesh.selection.choosing import first, ranked
from kdmesh.selection.criterion import Asked
from kdmesh.selection.disagreement import Disagreement
from kdmesh.selection.diversity import Diversity
from kdmesh.selection.loss import Loss
from kdmesh.selection.offers import CRITERIA
from kdmesh.selection.select import select
from kdmesh.selection.teachability import Teachability
from kdmesh.store import Store

DATA = {"dataset": "digits", "train": 200, "test": 100, "validation": 100}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mesh file of two trained teachers and a trained student."""
    root: Path = tmp_path_factory.mktemp("select")
    mesh = kdmesh.Mesh(data=DATA, train={"epochs": 6, "batch_size": 32, "optimizer": {"adamw": {"lr": 3e-3}}})
    models = {"a": [32], "b": [16, 16], "s": [8]}
    for name, hidden in models.items():
        mesh.agent(name, {"mlp": {"hidden": hidden}})
        mesh.flow("labels", name, objective="ce")
    run = mesh.run(backend="inline", out=root / "runs", store="off")
    told: dict[str, Any] = {"name": "chosen", "data": DATA, "agents": {}, "flows": [], "train": {"epochs": 1}}
    for name, hidden in models.items():
        weights = str(run.folder / "agents" / name / "model.safetensors") if run.folder else ""
        told["agents"][name] = {"model": {"mlp": {"hidden": hidden}}, "weights": weights}
        told["agents"][name] |= {} if name == "s" else {"update": "frozen"}
    told["flows"] = [{"from": name, "to": "s", "objective": "kl"} for name in ("a", "b")]
    (root / "mesh.yaml").write_text(yaml.safe_dump(told))
    return root


def chosen(folder: Path, *words: str, out: str = "selection.json", keep: str = "40") -> dict[str, Any]:
    path = folder / out
    path.unlink(missing_ok=True)
    command = ["select", str(folder / "mesh.yaml"), "--keep", keep, "--out", str(path), "--store", "off", *words]
    assert main(command) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def ids(told: dict[str, Any]) -> list[int]:
    return [one["id"] for one in told["samples"]]


MOMENTS = {
    "an agent was asked": "kdmesh.store.entry.shards.write",
    "both were": "kdmesh.selection.select.first",
    "the choice is written": "kdmesh.files._sync",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_the_middle_it_leaves_the_choice_before_and_goes_on(
    moment: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chosen(folder, "--by", "disagreement")
    out, store = tmp_path / "selection.json", tmp_path / "store"
    out.write_text("the one before", encoding="utf-8")
    line = ["select", str(folder / "mesh.yaml"), "--keep", "40", "--out", str(out), "--store", str(store)]
    line += ["--by", "disagreement"]
    real = pkgutil.resolve_name(MOMENTS[moment])

    def deadly(*args: Any, **options: Any) -> Any:
        done = real(*args, **options)
        if "written" not in moment or args[0].parent == tmp_path:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    if not (child := os.fork()):
        monkeypatch.setattr(MOMENTS[moment], deadly)
        os._exit(main(line))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert out.read_text(encoding="utf-8") == "the one before"
    assert [one for one in Store.open(store).verify() if not one.harmless] == []
    assert main(line) == 0 and json.loads(out.read_text()) == whole


def later(folder: Path, path: str, **changes: Any) -> Any:
    told = yaml.safe_load((folder / "mesh.yaml").read_text())
    told["streams"] = {"core": {"of": "train", "select": path}}
    told |= changes
    (folder / "later.yaml").write_text(yaml.safe_dump(told))
    return kdmesh.Mesh.read(folder / "later.yaml")


def rows_of(mesh: Any, name: str) -> list[int]:
    rows: list[int] = examine(mesh.plan()).streams[name].rows.tolist()
    return rows


@pytest.mark.parametrize("by", ["disagreement", "teachability", "loss", "diversity", "random"])
def test_each_criterion_chooses_of_train_and_a_mesh_has_them(folder: Path, by: str, capsys: Any) -> None:
    told = chosen(folder, "--by", by, "--student", "s")
    assert "40 of 200 samples of train" in capsys.readouterr().out
    mesh = later(folder, "selection.json")
    train, core = rows_of(mesh, "train"), rows_of(mesh, "core")
    assert core == sorted(ids(told)) and len(core) == 40 and {*core} <= {*train}
    assert told["how"]["agents"] == (["a", "b"] if by in ("disagreement", "teachability", "loss") else [])
    assert told == chosen(folder, "--by", by, "--student", "s")  # seeded
    scores = [one.get(by, 0.0) for one in told["samples"]]
    assert len(scores) == 40 and (by == "random" or scores == sorted(scores, reverse=True))
    digits = examine(mesh.plan()).table.y
    assert digits is not None
    counts = digits[torch.tensor(core)].bincount(minlength=10)
    assert int(counts.min()) >= 3 and int(counts.max()) <= 5  # each class keeps its share


def test_agents_that_look_their_answers_up_choose_as_those_who_gave_them(folder: Path, tmp_path: Path) -> None:
    store, line = tmp_path / "store", ("--by", "disagreement", "--store", str(tmp_path / "store"))
    first = chosen(folder, *line)
    entries = {one.info["agent"]: one.digest for one in Store.open(store).entries()}
    told = yaml.safe_load((folder / "mesh.yaml").read_text())
    for name in ("a", "b"):
        told["agents"][name] = {"model": {"stored": {"entry": entries[name][:12]}}, "update": "frozen"}
    (tmp_path / "mesh.yaml").write_text(yaml.safe_dump(told))
    again = chosen(tmp_path, *line)
    assert again["samples"] == first["samples"]
    assert again["how"]["weights"] == {name: f"entry {entries[name]}" for name in ("a", "b")}


def test_an_endpoint_is_not_asked(tmp_path: Path) -> None:
    lines = [{"text": f"text {number}", "label": "no" if number % 2 else "yes"} for number in range(20)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    mesh = kdmesh.Mesh(data={"dataset": {"text": {"path": str(tmp_path / "texts.jsonl"), "text": "text"}}})
    mesh.agent("gpt", {"api": {"base_url": "http://127.0.0.1:1/v1", "model": "m"}}, update="frozen")
    mesh.agent("s", {"hf": {"path": str(tmp_path)}})
    mesh.flow("gpt", "s", objective="kl")
    with pytest.raises(MeshError, match="gpt is behind an endpoint, and has no weights: it is asked in runs alone"):
        select(mesh.plan(), {"teachability": {}}, 5, student="s", store="off")


def test_a_seed_and_shares(folder: Path) -> None:
    one, other = (ids(chosen(folder, "--by", "random", "--seed", seed)) for seed in ("0", "1"))
    assert one != other and len(ids(chosen(folder, "--by", "random", keep="0.1"))) == 20
    free = ids(chosen(folder, "--by", "loss", "--student", "s", "--no-stratify"))
    assert free != ids(chosen(folder, "--by", "loss", "--student", "s"))
    both = chosen(folder, "--by", "loss,diversity", "--by", "teachability: {k: 2}", "--student", "s")
    assert [*both["samples"][0]] == ["id", "loss", "diversity", "teachability"]


def test_a_stream_of_chosen_samples_teaches(folder: Path) -> None:
    chosen(folder, "--by", "loss", "--student", "s")
    told = [{"from": name, "to": "s", "objective": "kl", "stream": "core"} for name in ("a", "b")]
    summary = later(folder, "selection.json", flows=told).run(backend="inline", store="off").summary
    assert summary["agents"]["s"]["updates"] == 1  # 40 of 200 in batches of 64


def test_a_run_notes_which_selection_it_was_made_with(folder: Path) -> None:
    """So that it is not resumed with another one."""
    chosen(folder, "--by", "random")
    before = inputs(later(folder, "selection.json").plan().spec)
    chosen(folder, "--by", "random", "--seed", "1")
    after = inputs(later(folder, "selection.json").plan().spec)
    assert before.keys() == after.keys() == {"streams.core.select"} and before != after


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {**DATA, "seed": 1}}, r"of its 40 samples are not in this stream's `of`, and some are in"),
        ({"data": {**DATA, "train": 100}}, "samples are not in this stream's `of`: the first is sample"),
        ({"data": "diabetes", "task": "regression"}, "these data have other samples"),
        ({"streams": {"core": {"of": "validation", "select": "selection.json"}}}, "40 of its 40 samples are not in"),
        ({"streams": {"core": {"of": "train", "select": "mesh.yaml"}}}, "is no selection of samples"),
        ({"streams": {"core": {"of": "train", "select": "gone.json"}}}, "gone.json"),
        ({"streams": {"core": {"of": "train", "select": "newer.json"}}}, "a selection of format 9"),
    ],
)
def test_other_data_are_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    told = chosen(folder, "--by", "random")
    (folder / "newer.json").write_text(json.dumps({**told, "kdmesh_selection": 9}))
    fields = {"agents": {"s": {"model": {"mlp": {}}}}, "flows": [{"from": "labels", "to": "s", "objective": "ce"}]}
    if "task" in changes:
        fields["flows"] = [{"from": "labels", "to": "s", "objective": "mse"}]
    mesh = later(folder, "selection.json", **fields, **changes)
    with pytest.raises(kdmesh.MeshError, match=said):
        rows_of(mesh, "core")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "lost"], "did you mean 'loss'"),
        (["--by", "loss"], "a criterion asks a student"),
        (["--by", "loss", "--student", "z"], "no agent 'z'"),
        (["--by", "disagreement", "--agents", "a"], "1 teacher, and disagreement is between several"),
        (["--by", "teachability: {k: 10}", "--student", "s"], "k: 10 of 10 columns"),
        (["--by", "teachability: {k: 0}", "--student", "s"], "k"),
        (["--by", "teachability: {size: 3}", "--student", "s"], "size"),
        (["--by", "random,loss", "--student", "s"], "random beside others"),
        (["--by", "random", "--stream", "test"], "nothing is chosen by what is held out"),
        (["--by", "random", "--stream", "validation"], "nothing is chosen by what is held out"),
        (["--by", "random", "--stream", "core"], "no stream 'core'"),
        (["--by", "random", "--keep", "many"], "found 'many'"),
        (["--by", "random", "--keep", "200"], "200 of 200 samples"),
        (["--by", "random", "--keep", "0"], "0 of 200 samples"),
        (["--by", "random", "--keep", "nan"], "a fraction of nan"),
        (["--by", "random", "--keep", "999"], "where 200 are left"),
        (["--by", "random", "--set", "agents.a.weights=null", "--agents", "a"], ""),
        (["--by", "disagreement", "--set", "agents.a.weights=null"], "has learned nothing yet"),
    ],
)
def test_mistakes_are_named(folder: Path, words: list[str], said: str, capsys: Any) -> None:
    code = main(["select", str(folder / "mesh.yaml"), "--keep", "9", "--out", str(folder / "x.json"), *words])
    error = capsys.readouterr().err
    assert (code, error) == (0, "") if not said else (code == 2 and said in error)


def test_criteria_are_what_they_say() -> None:
    sure, other = torch.tensor([9.0, 0, 0]), torch.tensor([0, 9.0, 0])
    teachers = torch.stack([torch.stack([sure, sure]), torch.stack([sure, other])])  # [M, n, C]
    found = Disagreement().rows(Asked(teachers))
    assert float(found[0]) == pytest.approx(0, abs=1e-12) and float(found[1]) == pytest.approx(0.69, abs=0.01)
    student = torch.stack([sure, sure])
    assert Teachability(k=1).rows(Asked(teachers, student))[0] > 0.99
    assert float(Teachability(k=1).rows(Asked(teachers, student))[1]) == pytest.approx(0.5, abs=0.01)
    labels = torch.tensor([0, 1])
    torch.testing.assert_close(
        Loss().rows(Asked(teachers, student, labels)),
        torch.nn.functional.cross_entropy(student.double(), labels, reduction="none"),
    )
    hidden = Loss().rows(Asked(teachers[:1], student))
    assert hidden[0] < 0.02 and Loss().rows(Asked(teachers, student))[1] > 4


def test_one_of_each_group_of_near_duplicates_comes_first() -> None:
    points = torch.tensor([[0.0, 0], [0, 0.01], [0.01, 0], [5, 5], [5, 5.01], [9, 0]])
    scores = Diversity(near=0.1).samples(points, seed=3)
    groups = [{0, 1, 2}, {3, 4}, {5}]
    best = {int(at) for at in (scores == 1).nonzero()}
    assert all(len(best & group) == 1 for group in groups)
    assert sorted(scores[:3].tolist()) == [pytest.approx(1 / 3), 0.5, 1.0]
    drawn = [(Diversity(near=0.1).samples(points, seed) == 1).nonzero()[:, 0].tolist() for seed in range(8)]
    assert len({*map(tuple, drawn)}) > 1
    assert len(Diversity().samples(torch.randn(1, 4), 0)) == 1


def test_ranks_are_averaged_and_classes_keep_their_shares() -> None:
    scores = {"one": torch.tensor([1.0, 2, 3, 4]), "other": torch.tensor([40.0, 30, 20, 50])}
    assert ranked(scores, 4, 0)[0] == 3
    assert ranked({"one": scores["one"]}, 4, 0).tolist() == [3, 2, 1, 0]
    assert ranked({}, 40, 0).tolist() != ranked({}, 40, 1).tolist()
    order, classes = torch.arange(10), torch.tensor([0] * 8 + [1] * 2)
    assert first(order, 5, classes).tolist() == [0, 1, 2, 3, 8] and first(order, 5, None).tolist() == [0, 1, 2, 3, 4]


def test_every_criterion_is_offered_with_a_summary() -> None:
    assert all(offer.summary and offer.make() is not None for offer in CRITERIA.values())
