"""Images that are decoded when a batch asks for them: the bits of those in memory; raw files have the run's figures."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from read_later import same_samples

import kdmesh
from kdmesh.builtin.datasets.offers import DATASETS
from kdmesh.cli import main
from kdmesh.errors import MeshError, RunFailed
from kdmesh.streams.private import own_part
from kdmesh.streams.remarks import leaks, remarks
from kdmesh.streams.stream import Stream
from kdmesh.streams.unread import Unread, joined
from kdmesh.tables.decoding import Decoders

OFFER = next(offer for offer in DATASETS if offer.name == "images")
ON_THE_POOL = {"stream": "transfer", "labels_stream": "train"}
SETTINGS = {"memory": {"lazy": False}, "lazy": {"lazy": True}, "workers": {"lazy": True, "workers": 2}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes that differ in brightness, with official splits and a pool, in a .zip."""
    root = tmp_path_factory.mktemp("photos")
    drawn = np.random.default_rng(0)
    with zipfile.ZipFile(root / "photos.zip", "w") as file:
        for part, count in {"train": 14, "val": 6, "test": 9, "transfer": 11}.items():
            for label, low in {"dark": 0, "light": 90}.items():
                for number in range(count):
                    pixels = drawn.integers(low, low + 150, (7, 6, 3), dtype=np.uint8)
                    path = root / "photos" / part / label / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
                    file.write(path, path.relative_to(root / "photos"))
    return root


def settings(photos, **more):
    return {"path": str(photos / "photos.zip"), "resize": [6, 6], **more}


def test_what_is_read_later_is_what_is_in_memory(photos):
    memory = OFFER.make(settings(photos, lazy=False))
    for more in (SETTINGS["lazy"], SETTINGS["workers"]):
        table = OFFER.make(settings(photos, **more))
        at = torch.tensor([5, 3, 70, 3])
        same_samples(table, memory, at)
        assert torch.equal(table.x[4:9], memory.x[4:9])
        part = table.x.select(at)
        assert torch.equal(part[torch.tensor([2, 0])], memory.x[[70, 5]]) and part.shape == (4, 3, 6, 6)
        both = joined([part, memory.x[:2]])
        assert torch.equal(both[torch.tensor([5, 0, 4])], memory.x[[1, 5, 0]])


def mesh(photos, more):
    """Teachers and a student that see other views, on the pool too."""
    return kdmesh.Mesh(
        name="m",
        data={"dataset": {"images": settings(photos, **more)}},
        agents={
            "t": {"model": {"mlp": {"hidden": [8]}}},
            "u": {"model": {"mlp": {"hidden": [8]}}, "view": {"augment": ["noise"], "draws": 1}},
            "s": {"model": {"mlp": {"hidden": [4]}}, "view": {"augment": ["noise"]}},
        },
        connect=[
            {"ensemble": {"teachers": ["t", "u"], "student": "s", "stream": "transfer", "labels_stream": "train"}}
        ],
        train={"epochs": 3, "batch_size": 8},
    )


@pytest.fixture(scope="module")
def results(photos):
    return {name: mesh(photos, more).run(backend="inline", store="off") for name, more in SETTINGS.items()}


def test_a_run_has_the_same_bits_however_images_are_read(results):
    found = {
        name: [(agent.weights_sha256, agent.metrics) for agent in result.agents.values()]
        for name, result in results.items()
    }
    assert found["memory"] == found["lazy"] == found["workers"]


def test_the_store_finds_what_was_said_of_images_in_memory(photos, results, tmp_path):
    first = mesh(photos, SETTINGS["memory"]).run(backend="inline", store=tmp_path)
    again = mesh(photos, SETTINGS["workers"]).run(backend="inline", store=tmp_path)
    said = [one.summary["store"]["agents"]["t"] for one in (first, again)]
    assert said[0]["found"] == 0 and said[1]["found"] > 0, said
    assert [one["s"].weights_sha256 for one in (first, again)] == [results["memory"]["s"].weights_sha256] * 2


def test_an_image_that_cannot_be_read_is_named_when_it_is(photos, tmp_path):
    shutil.copytree(photos / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "train" / "dark" / "3.png").write_bytes(b"x")
    for more in (SETTINGS["lazy"], SETTINGS["workers"]):
        table = OFFER.make({"path": str(tmp_path / "photos"), **more})
        assert torch.isfinite(table.x[:3]).all()
        with pytest.raises(MeshError, match=r"train/dark/3\.png: .*no PNG, JPEG or WebP") as error:
            table.x[torch.tensor([1, 12, 2, 10])]  # 0, 1, 10, 11, 12, 13, 2, 3 ... stand in that order
            table.x[:]
        assert "bad: drop" in error.value.instead
        table = OFFER.make({"path": str(tmp_path / "photos"), "bad": "drop", **more})
        assert len(table) == 79 and torch.isfinite(table.x[:]).all() and "1 of the 28" in table.notes[0]


def test_samples_of_others_are_never_read(photos, tmp_path, monkeypatch):
    shutil.copytree(photos / "photos", tmp_path / "photos")
    table = OFFER.make({"path": str(tmp_path / "photos"), "lazy": True, "workers": 1})
    rows = torch.arange(len(table))
    one, two = rows[:20], rows[20:]
    streams = {"own": Stream("own", rows, True, private=True, shards={"a": one, "b": two})}
    own = own_part(table, streams, ["a"])
    for name in [table.columns["path"][row] for row in two.tolist()]:
        (tmp_path / "photos" / name).unlink()
    assert torch.isfinite(own.x[one]).all() and own.x[two].isnan().all() and own.x[:].isnan().any()
    assert own.x.select(rows[10:30])[:].isnan().flatten(1).all(1).tolist() == [False] * 10 + [True] * 10
    sent, paths = pickle.dumps(own), table.columns["path"]
    assert [row for row in rows.tolist() if paths[row].encode() in sent] == one.tolist(), "names are private, too"
    asked, inner = [], Decoders.ask
    monkeypatch.setattr(Decoders, "ask", lambda self, names: asked.extend(names) or inner(self, names))
    assert own.x[:10].isfinite().all() and own.x[10:20].isfinite().all()  # after which others' are not asked for
    assert {name for _, name in asked} == {paths[row] for row in one.tolist()}


def test_what_is_said_of_data_in_memory_is_said_of_these(photos):
    said = []
    for more in (SETTINGS["memory"], SETTINGS["lazy"]):
        table = OFFER.make(settings(photos, **more))
        streams = {name: Stream(name, rows, True) for name, rows in table.official.items()}
        said.append((remarks(table, streams), leaks(table, streams)))
    assert said[0] == said[1]


def test_by_default_what_is_large_is_read_later(photos, monkeypatch):
    assert isinstance(OFFER.make(settings(photos)).x, torch.Tensor)
    monkeypatch.setattr("kdmesh.streams.host_memory.memory", lambda: 100_000)
    assert isinstance(OFFER.make(settings(photos)).x, Unread)
    with pytest.raises(ValueError, match="`workers` decode images that are not in memory"):
        OFFER.make(settings(photos, workers=2))


# A copied folder of an agent, and raw files


@pytest.fixture(scope="module")
def agent(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    result = mesh(photos, {"mode": "grey"}).run(backend="inline", store="off", out=out)
    copied = shutil.copytree(result.folder / "agents" / "s", out / "copied")
    shutil.rmtree(result.folder)
    return copied, result["s"].metrics["test"]


def said(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_raw_images_have_the_figures_of_the_run(photos, agent, tmp_path, capsys):
    folder, figures = agent
    test = photos / "photos" / "test"
    with zipfile.ZipFile(tmp_path / "test.zip", "w") as file:
        for path in test.rglob("*.png"):
            file.write(path, path.relative_to(test))
    rows = "".join(
        f"{path},{path.parent.name},{number % 2}\n" for number, path in enumerate(sorted(test.rglob("*.png")))
    )
    (tmp_path / "test.csv").write_text("path,label,site\n" + rows)
    for data in (test, tmp_path / "test.zip", tmp_path / "test.csv"):
        if data.suffix == ".csv":
            found = json.loads(said(capsys, "evaluate", folder, data, "--json", "--label", "label"))
        else:
            found = json.loads(said(capsys, "evaluate", folder, data, "--json"))
        assert found["samples"] == 18 and found["figures"] == figures, data
    assert "by_site" in said(capsys, "evaluate", folder, tmp_path / "test.csv", "--label", "label", "--by", "site")


def test_images_are_asked_about_by_name(photos, agent, tmp_path, capsys):
    folder, _ = agent
    pool = photos / "photos" / "transfer"
    lines = said(capsys, "predict", folder, pool).splitlines()
    assert lines[0] == "image,label,probability" and lines[1].startswith("dark/0.png,") and len(lines) == 23
    one = said(capsys, "predict", folder, pool / "light" / "3.png").splitlines()
    assert one[1].split(",")[1:] == next(line for line in lines if line.startswith("light/3.png,")).split(",")[1:]
    model = kdmesh.load(folder)
    found = model.predict([pool / "light" / "3.png", str(pool / "dark" / "0.png")])
    assert found.answers == [one[1].split(",")[1], lines[1].split(",")[1]]


def test_what_is_wrong_with_raw_images_is_named(photos, agent, tmp_path, capsys):
    folder, _ = agent
    (tmp_path / "wolf").mkdir()
    shutil.copy(photos / "photos" / "test" / "dark" / "0.png", tmp_path / "wolf" / "0.png")
    wrong = {
        ("evaluate", tmp_path): "odd/bad.png: its folder 'odd' is no class",
        ("evaluate", tmp_path / "wolf"): "images in no folders of classes",
        ("predict", tmp_path / "none"): "no file",
    }
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "bad.png").write_bytes((tmp_path / "wolf" / "0.png").read_bytes()[:60])
    wrong["predict", tmp_path / "odd" / "bad.png"] = "bad.png: cannot be read"
    for (command, path), what in wrong.items():
        assert main([command, str(folder), str(path)]) == 2
        message = capsys.readouterr().err
        assert what in message and "bad: drop" not in message and "Traceback" not in message, message


def test_each_image_is_decoded_once_however_many_agents_have_shards(photos, monkeypatch):
    table = OFFER.make(settings(photos, lazy=True, workers=1))
    asked, inner = [], Decoders.ask
    monkeypatch.setattr(Decoders, "ask", lambda self, names: asked.extend(names) or inner(self, names))
    shards = [table.x.select(torch.arange(72)[number::12]) for number in range(12)]
    for step in range(3):
        for shard in shards:
            for later in range(step, 3):
                shard.soon(torch.arange(2 * later, 2 * later + 2))
            shard[torch.arange(2 * step, 2 * step + 2)]
    assert len(asked) == len({*asked}) == 72


def test_processes_end_with_whoever_asked_them(photos):
    table = OFFER.make(settings(photos, **SETTINGS["workers"]))
    table.x[:4]
    made = [one.pid for one in table.x._workers._decoders._made]
    assert (len(made) == 2 and all(Path(f"/proc/{pid}").exists() for pid in made)) or os.name != "posix"
    workers = table.x._workers._decoders
    del table
    assert all(one.returncode == 0 for one in workers._made)


def test_a_process_that_has_ended_is_told_and_files_beside_are_no_modules(photos, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "zipfile.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path / "here")
    x = OFFER.make(settings(photos, **SETTINGS["workers"])).x
    assert len(x[torch.arange(4)]) == 4
    for one in x._workers._decoders._made:
        one.kill()
        one.wait()
    with pytest.raises(RunFailed, match=r"has ended, with exit code -9\n  instead: the same again") as error:
        x[torch.arange(2)]
    assert error.value.where == "data.dataset.images.workers"


FORKED = """
import gc, os, sys

from kdmesh.builtin.datasets.images import images

table = images(sys.argv[1], resize=[6, 6], lazy=True, workers=1)
table.x[:4]
if not os.fork():  # as a DataLoader does; it has all pipes too
    os.read(0, 1)
    os._exit(0)
workers = table.x._workers._decoders
del table
gc.collect()
print([one.returncode for one in workers._made], flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_processes_end_though_a_fork_has_their_pipes(photos):
    run = [sys.executable, "-W", "ignore", "-c", FORKED, str(photos / "photos.zip")]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "[0]\n"  # or it waits, until the test is given up
        process.stdin.close()


RESIDENT = """
import sys
from pathlib import Path

import torch

from kdmesh.builtin.datasets.images import images


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000


table = images(sys.argv[1], lazy=True)
table.x[:64], table.x[torch.arange(64)]
before = anonymous()
table.fingerprint, table.keys
for batch in torch.randperm(len(table), generator=torch.Generator().manual_seed(0)).split(64):
    assert table.x[batch].isfinite().all()
print(table.x.nbytes / 1e6, anonymous() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="its figures are Linux's")
def test_memory_does_not_grow_with_the_set(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "all.csv").write_text("path,label\n" + "".join(f"a.png,{number % 2}\n" for number in range(1500)))
    run = [sys.executable, "-c", RESIDENT, str(tmp_path / "all.csv")]
    size, grown = map(float, subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())
    assert size > 290 and grown < 150, (size, grown)  # MB: it reads 8 at a time, and copies them a few times
