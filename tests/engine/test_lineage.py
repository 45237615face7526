"""No sample that weights have learned is tested later: two seeds, and records that stand with saved agents."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import kdmesh
import kdmesh.api
from kdmesh.cli.running import launch
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError
from kdmesh.spec import DataSpec
from kdmesh.spec.read import parse
from kdmesh.streams.learned import overlap, record
from kdmesh.streams.stream import resolve

MODEL = {"mlp": {"hidden": [8]}}
TRAIN = {"steps": 4, "batch_size": 16}


def points(n: int = 200, seed: int = 0):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


def mesh(splits: dict | None = None, data=None, **fields) -> kdmesh.Mesh:
    table = kdmesh.data(points()) if data is None else data
    return kdmesh.Mesh(data=table, splits=splits or {}, train=TRAIN, **fields)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A teacher trained at data seed 0, and its folder."""
    made = mesh()
    made.agent("t", MODEL)
    made.flow("labels", "t", objective="ce")
    result = made.run(backend="inline", out=tmp_path_factory.mktemp("runs"))
    return result["t"].module, result.folder / "agents" / "t"


def taught(model, splits=None, data=None, seed: int = 0, **agent) -> kdmesh.Mesh:
    made = mesh(splits, data, seed=seed)
    made.agent("t", model, update="frozen", **agent)
    made.agent("s", MODEL)
    made.connect("ensemble", teachers="t", student="s", objective="kl")
    return made


def marks(result: kdmesh.api.Result) -> list[str]:
    """The notes of a summary, without those on what four steps taught."""
    return [note for note in result.summary["notes"] if not note.startswith("at chance")]


def rows(found: kdmesh.Mesh) -> dict[str, list[int]]:
    from kdmesh.hosts.source import Source

    streams = Source(found.table).load(found.plan())[1]
    return {name: stream.rows.tolist() for name, stream in streams.items()}


def test_the_run_seed_moves_no_sample_and_the_data_seed_no_weight(hashes):
    def made(seed: int, data_seed: int) -> kdmesh.Mesh:
        found = mesh(
            {"seed": data_seed, "transfer": 0.2},
            seed=seed,
            streams={"few": {"size": 20}, "own": {"shards": {"of": ["a", "b"], "by": "dirichlet"}}},
        )
        for name in ("a", "b"):
            found.agent(name, MODEL)
        found.flow("labels", ["a", "b"], stream="own", objective="ce")
        return found

    assert rows(made(0, 0)) == rows(made(5, 0)) != rows(made(0, 5))
    assert all(rows(made(0, 0))[name] != rows(made(0, 5))[name] for name in ("train", "test", "few", "transfer"))
    assert hashes(made(0, 0)) != hashes(made(5, 0))


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"seed": 1}, "data.seed: 0"),
        ({"test": 0.4}, "no data.test"),
        ({"test": 0.1, "validation": 0.3}, "data.validation: 0.1"),
        ({"stratify": False}, "data.stratify: true"),
    ],
)
@pytest.mark.parametrize("way", ["file", "given", "loaded"])
def test_weights_beside_another_split_of_their_data_are_refused(trained, splits, said, way):
    module, folder = trained
    agent = {
        "file": lambda: taught(MODEL, splits, weights=str(folder / "model.safetensors")),
        "given": lambda: taught(module, splits),
        "loaded": lambda: taught(torch.nn.Sequential(kdmesh.load(folder)), splits),
    }[way]()
    with pytest.raises(MeshError, match="trained on the same data, split in another way") as error:
        agent.run(backend="inline")
    assert error.value.where == ("agents.t.weights" if way == "file" else "agents.t")
    assert said in error.value.instead


@pytest.mark.parametrize("splits", [{}, {"train": 0.5}, {"validation": 0.05, "seed": 0}])
def test_the_same_held_out_samples_are_welcome_under_any_run_seed(trained, splits):
    result = taught(MODEL, splits, seed=3, weights=str(trained[1] / "model.safetensors")).run(backend="inline")
    assert marks(result) == [] and result.summary["data_seed"] == 0


def test_what_a_teacher_has_learned_stands_with_its_student_too(trained, tmp_path):
    other = kdmesh.data(points(seed=1))
    result = taught(MODEL, {"seed": 4}, other, weights=str(trained[1] / "model.safetensors")).run(
        backend="inline", out=tmp_path
    )
    learned = json.loads((result.folder / "agents" / "s" / "config.json").read_text())["learned_from"]
    assert [one["splits"]["seed"] for one in learned] == [4, 0]
    with pytest.raises(MeshError, match="may be among their training samples"):
        taught(kdmesh.load(result.folder / "agents" / "s"), {"seed": 2}).run(backend="inline")


def test_weights_from_elsewhere_are_marked_once_the_data_seed_is_moved(trained, tmp_path):
    save_file(load_file(trained[1] / "model.safetensors"), tmp_path / "copy.safetensors")
    for model, agent in ((MODEL, {"weights": str(tmp_path / "copy.safetensors")}), (torch.nn.Linear(8, 3), {})):
        assert marks(taught(model, **agent).run(backend="inline")) == []
        (note,) = marks(taught(model, {"seed": 2}, **agent).run(backend="inline"))
        assert note.startswith("data.seed is 2, and what the weights of t were trained on is not known")


@pytest.mark.parametrize("way", ["alone", "beside another's", "in another's place", "linked", "loaded"])
def test_a_weights_file_says_what_it_learned_wherever_it_is_moved(trained, tmp_path, way):
    weights = (trained[1] / "model.safetensors").read_bytes()
    file = tmp_path / ("model.safetensors" if way in ("in another's place", "loaded") else "moved.safetensors")
    if way != "alone":  # the folder is of an agent whose data were split as they are here
        config = json.loads((trained[1] / "config.json").read_text())
        config["learned_from"][0]["splits"]["seed"] = 1
        (tmp_path / "config.json").write_text(json.dumps(config))
    if way == "linked":
        file.symlink_to(trained[1] / "model.safetensors")
    else:
        file.write_bytes(weights)
    made = taught(kdmesh.load(tmp_path), {"seed": 1}) if way == "loaded" else None
    with pytest.raises(MeshError, match="trained on the same data, split in another way"):
        (made or taught(MODEL, {"seed": 1}, weights=str(file))).run(backend="inline")


@pytest.mark.parametrize("said", ["{}", "[[", "3", '[{"samples": 1}]', "[" * 5000])
def test_a_weights_file_with_a_broken_record_is_read_without_it(trained, tmp_path, said):
    save_file(load_file(trained[1] / "model.safetensors"), tmp_path / "a.safetensors", {"learned_from": said})
    assert marks(taught(MODEL, weights=str(tmp_path / "a.safetensors")).run(backend="inline")) == []


def test_an_agent_of_a_version_that_kept_no_record_is_always_marked(trained, tmp_path):
    save_file(load_file(trained[1] / "model.safetensors"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((trained[1] / "config.json").read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    del config["learned_from"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = str(tmp_path / "model.safetensors")
    assert "weights of t" in marks(taught(MODEL, weights=weights).run(backend="inline"))[0]


def test_several_seeds_and_controls_test_the_same_samples(trained, tmp_path, capsys):
    (tmp_path / "x.csv").write_text(
        "a,b,label\n" + "".join(f"{i % 7},{i % 5},{'no' if i % 3 else 'yes'}\n" for i in range(120))
    )
    spec = parse(
        {
            "data": {"dataset": {"csv": {"path": str(tmp_path / "x.csv")}}},
            "agents": {"t": {"model": MODEL}, "u": {"model": MODEL}, "s": {"model": MODEL}},
            "connect": [{"ensemble": {"teachers": ["t", "u"], "student": "s", "objective": "kl"}}],
            "train": TRAIN,
        }
    )
    assert launch(Request(spec, "inline", out=tmp_path / "runs", seeds=2, controls=True), quiet=True) == 0
    shown = capsys.readouterr().out
    assert "All seeds share one split (data seed 0)" in shown
    told = [json.loads(path.read_text()) for path in Path(tmp_path).glob("runs/*/*/seeds/*/agents/s/config.json")]
    assert len(told) == 2 and told[0]["learned_from"] == told[1]["learned_from"]


def test_a_damaged_record_is_not_known_rather_than_trusted():
    table = kdmesh.data(points())
    good = record(table, DataSpec.model_validate("python:given"))
    for broken in ({}, {**good, "splits": {"seed": "x"}}, {**good, "official": 3}, {**good, "splits": None}):
        with pytest.raises(ValueError):
            overlap(broken, table, {})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, ("test", 0)),
        ({"x": points(seed=7)[0], "source": "torch"}, None),  # other samples
        ({"x": points()[0][:, :4], "source": "a.csv"}, ("test", 1)),  # other columns of one file
        ({"x": points(seed=7)[0], "y": points(seed=7)[1], "source": "a.csv"}, None),  # another file of that name
        ({"y": points()[1].flip(0)}, ("test", 40)),  # other labels: split in another way
    ],
)
def test_which_data_are_the_same(change, found):
    table, data = kdmesh.data(points()), DataSpec(dataset="given", seed=1)
    before = {**record(table, DataSpec(dataset="given")), "source": "a.csv"}
    now = replace(table, **{"source": "a.csv", **change})
    leak = overlap(before, now, resolve(now, data, {}))
    assert (leak is None) == (found is None)
    if found is not None:
        assert leak.split == found[0] and found[1] <= leak.count <= leak.whole == 40
