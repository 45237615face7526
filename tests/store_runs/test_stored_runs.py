"""Runs with a store: what is found, written, said, and not kept; after kills, on Ray, and with a damaged shard."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import host, mesh, published, run, said, table
from torch import Tensor, nn
from torch.nn import functional as F

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.cli import main
from kdmesh.engine.launch import run_once
from kdmesh.engine.request import Request
from kdmesh.errors import MeshError, RunFailed
from kdmesh.hosts.placed import PLACE, moves
from kdmesh.spec.read import parse
from kdmesh.spec.yaml12 import dump

COUNTED = {"augment": ["noise"], "draws": 4}
KINDS = {
    "once": {"flow": {"refresh": "once"}},
    "live": {"flow": {"refresh": "step"}},
    "views": {"flow": {"refresh": "step"}, "teacher": {"view": COUNTED}, "train": {"epochs": 6}},
    "hidden": {"flow": {"objective": "hint", "tap": {"of": "layers.0", "to": "layers.0"}, "refresh": "step"}},
    "top k": {"flow": {"signal": {"top_k": {"k": 2}}, "refresh": "step"}},
    "smaller forwards": {"flow": {"refresh": "step"}, "train": {"forward_size": 16}},
    "larger forwards": {"flow": {"refresh": "step"}, "train": {"forward_size": 48}},
}
each = pytest.mark.parametrize("kind", KINDS)


@each
def test_the_second_run_forwards_nothing_and_has_the_same_bits(kind: str, tmp_path: Path) -> None:
    without, cold, warm = (run(mesh(**KINDS[kind]), store) for store in ("off", tmp_path, tmp_path))
    assert said(without) == said(cold) == said(warm)
    assert (cold["agents"]["t"]["forwards"]["made"] > 0) and warm["agents"]["t"]["forwards"]["made"] == 0
    rows = cold["store"]["all"]["written"]
    assert rows == {"views": 4 * 90 + 80}.get(kind, 90 + 80)  # and those of validation and test
    told = warm["store"]["agents"]["t"]
    assert told["forwarded"] == told["written"] == told["kept"] == told["foreign"] == 0
    assert told["found"] >= rows and told["read"] > 0 and told["forwards"] > 0
    assert warm["store"]["not_kept"] == {}


@each
def test_a_run_that_breaks_off_and_goes_on_has_the_same_bits(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = said(run(mesh(**KINDS[kind]), "off"))
    call, calls, last = InlineBackend.call, 0, 0

    def mortal(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            raise RuntimeError("broken off")
        return call(self, *args, **options)

    monkeypatch.setattr(InlineBackend, "call", mortal)
    run(mesh(**KINDS[kind]), tmp_path / "counted", out=tmp_path, checkpoint_seconds=0)
    every = calls
    for number, store in enumerate((tmp_path / "one", tmp_path / "one", tmp_path / "counted")):
        calls, last, out = (
            0,
            random.Random(f"{kind}{number}").randrange(every // 3, every * 2 // 3),
            tmp_path / str(number),
        )
        with pytest.raises(RunFailed, match="broken off"):
            run(mesh(**KINDS[kind]), store, out=out, checkpoint_seconds=0)
        calls, last = 0, 0
        (folder,) = (out / "mesh").iterdir()
        again = mesh(**KINDS[kind]).run(resume=folder)  # the store is the one it was begun with
        assert said(again.summary) == expected and "store" in again.summary


@pytest.mark.ray
@pytest.mark.parametrize("placement", ["together", "spread"])
def test_hosts_of_one_machine_share_the_folder(placement: str, tmp_path: Path, ray_session: Any) -> None:
    made = mesh(flow={"refresh": "step"}, teacher={"view": COUNTED}, train={"epochs": 5}, data=None)
    fields = {
        **made._fields,
        "data": "digits",
        "placement": placement,
        "streams": {"few": {"of": "train", "size": 200}},
    }
    for flow in fields["flows"]:
        flow["stream"] = "few"
    spec = parse(fields)
    without, _, _ = run_once(Request(spec, "inline", store="off"))
    for store in (tmp_path / "ray", tmp_path / "ray"):
        summary, _, _ = run_once(Request(spec, store=str(store)), session=ray_session)
        assert said(summary) == said(without)
    assert summary["agents"]["t"]["forwards"]["made"] == 0
    inline, _, _ = run_once(Request(spec, "inline", store=str(tmp_path / "ray")))
    assert said(inline) == said(without) and inline["store"]["all"]["forwarded"] == 0


class Draws(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, training=True)


class Together(nn.Linear):
    """It compares a sample with the others of a batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


def of_files(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A module of this file, which would have no identity, as if it came from one that is not rewritten."""
    monkeypatch.setattr("kdmesh.hosts.weights.identity", lambda module: type(module).__name__)
    return module


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Draws, "it draws from a global generator"),
        (Together, "depend on its place in a forward, or on the others there"),
    ],
)
def test_what_another_run_could_not_repeat_is_not_kept(
    module: Any, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    teacher = {"model": of_files(module(8, 3), monkeypatch), "seed": None}
    without, kept = (run(mesh(teacher=teacher, flow={"refresh": "step"}), store) for store in ("off", tmp_path))
    assert why in kept["store"]["not_kept"]["t"] and not list(tmp_path.rglob("*.safetensors"))
    assert kept["agents"]["t"]["forwards"] == without["agents"]["t"]["forwards"]
    if module is Together:
        assert said(kept) == said(without)


@pytest.mark.parametrize(
    ("capability", "setting", "advice"),
    [("AVX512", None, "MKL_CBWR=AVX512,STRICT"), ("AVX2", None, "MKL_CBWR=AVX2,STRICT"), ("DEFAULT", None, None),
     ("AVX2", "AVX2", None)],
)  # fmt: skip
def test_a_setting_is_named_that_may_sum_rows_alike(
    capability: str, setting: str | None, advice: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("torch.backends.mkl.is_available", lambda: True)
    monkeypatch.delenv("MKL_CBWR", raising=False)
    if setting is not None:
        monkeypatch.setenv("MKL_CBWR", setting)
    told = moves(lambda some: {"logits": some - some.float().cumsum(0)}, torch.arange(4), lambda name, some: None)
    assert told.startswith(PLACE) and ("MKL_CBWR" in told) is (advice is not None)
    assert advice is None or advice in told


def test_code_that_no_file_has_is_not_kept(tmp_path: Path) -> None:
    summary = run(mesh(teacher={"model": Together(8, 3), "seed": None}), tmp_path)
    assert summary["store"]["not_kept"] == {"t": "no file has the code of test_stored_runs"}
    assert not list(tmp_path.rglob("*.safetensors"))


def test_views_without_a_number_are_not_kept(tmp_path: Path) -> None:
    teacher = {"view": {"augment": ["noise"]}}
    without, kept = (run(mesh(teacher=teacher, flow={"refresh": "step"}), store) for store in ("off", tmp_path))
    assert said(kept) == said(without) and "`view: {draws: 4}` counts them" in kept["store"]["not_kept"]["t"]
    assert kept["store"]["all"]["written"] == 80  # it is measured on samples as they are


def test_of_private_samples_nothing_is_kept(tmp_path: Path) -> None:
    streams = {"own": {"of": "train", "private": True}}
    made = mesh(streams=streams, flow={"stream": "own"})
    made._fields["flows"][0]["stream"] = "own"
    summary = run(made, tmp_path)
    assert "private samples (own)" in summary["store"]["not_kept"]["t"]
    assert summary["store"]["all"]["written"] == 80  # of validation and test


def test_what_sees_another_agent_is_not_kept(tmp_path: Path) -> None:
    def made() -> kdmesh.Mesh:
        found = mesh(teacher={"update": "grad"})
        found.agent("first", {"mlp": {"hidden": [6]}}, update="frozen", seed=4)
        found.flow("labels", "t", objective="ce")
        found.flow("first", "t", refresh="epoch", **{"as": "input"})
        return found

    without, kept = (run(made(), store) for store in ("off", tmp_path))
    assert said(kept) == said(without)
    assert kept["store"]["not_kept"] == {"t": "it sees what another agent says, in the place of samples"}


def test_rows_of_another_fingerprint_are_used_and_said(tmp_path: Path) -> None:
    run(mesh(teacher={"train": {"threads": 2}}), tmp_path)
    summary = run(mesh(), tmp_path)
    told = summary["store"]["agents"]["t"]
    assert told["foreign"] == told["found"] == 170
    (note,) = [note for note in summary["notes"] if "answers of t" in note]
    assert "threads 2, not 1" in note and "their last bits may differ" in note
    assert "answers of t" not in str(run(mesh(), "off")["notes"])


def test_a_damaged_shard_is_computed_again_and_said(tmp_path: Path) -> None:
    first = run(mesh(), tmp_path)
    for shard in tmp_path.rglob("shards/*.safetensors"):
        content = bytearray(shard.read_bytes())
        content[-3] ^= 4
        shard.write_bytes(content)
    again = run(mesh(), tmp_path)
    assert said(again) == said(first) and again["store"]["all"]["found"] == 0
    assert any(note.startswith("store:") and "set aside" in note for note in again["notes"])
    assert run(mesh(), tmp_path)["store"]["all"]["forwarded"] == 0


def test_a_store_that_takes_nothing_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "v1").write_text("in the way", encoding="utf-8")
    summary = run(mesh(), tmp_path / "store")
    assert said(summary) == said(run(mesh(), "off"))
    assert summary["store"]["all"]["written"] == 0 and any(note.startswith("store:") for note in summary["notes"])


def test_what_can_be_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for store, what in ((tmp_path / "file", "is a file, not a folder"), (" ", "no folder is named")):
        with pytest.raises(MeshError, match=what):
            run(mesh(), store)
    with pytest.raises(MeshError, match="store"):
        mesh().run(store=3)  # type: ignore[arg-type]


def test_a_finished_teacher_is_found_by_its_weights(tmp_path: Path) -> None:
    """It trains again, to the same weights, and then says what it said."""
    without, cold, warm = (run(mesh(teacher={"update": "grad"}), store) for store in ("off", tmp_path, tmp_path))
    assert said(without) == said(cold) == said(warm)
    assert cold["store"]["agents"]["t"]["written"] == warm["store"]["agents"]["t"]["found"] == 90
    other = run(mesh(teacher={"update": "grad"}, train={"optimizer": {"sgd": {"lr": 0.05}}}), tmp_path)
    assert other["store"]["agents"]["t"]["found"] == 0


def test_equal_samples_are_forwarded_once(tmp_path: Path) -> None:
    data = table()
    data.x[:10] = data.x[0]
    one, alone = host(mesh(data), tmp_path), host(mesh(data), "")
    values = published(one)
    assert torch.equal(values[""][0], published(alone)[""][0])
    rows = one.loader.shard("train", "t", one.device).x
    assert one.shelf is not None and one.shelf.hits["t"].forwarded == len(torch.unique(rows, dim=0)) < 90


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = mesh()
    (tmp_path / "small.yaml").write_text(
        dump({**made._fields, "data": "digits", "train": {"steps": 2}}), encoding="utf-8"
    )
    return tmp_path / "small.yaml"


def test_the_command_says_what_was_spared(file: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["run", str(file), "--quiet", "--backend", "inline"]
    assert main([*line, "--store", "kept"]) == 0 and "store: 0/" in capsys.readouterr().out
    assert main([*line, "--store", "kept"]) == 0
    out = capsys.readouterr().out
    assert "store: all " in out and " answers found: " in out and max(map(len, out.splitlines())) <= 80
    monkeypatch.setenv("KDMESH_STORE", str(tmp_path / "kept"))
    assert main(line) == 0 and "forwards, " in capsys.readouterr().out
    assert main([*line, "--store", "off"]) == 0 and "store:" not in capsys.readouterr().out
    monkeypatch.delenv("KDMESH_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(line) == 0 and (tmp_path / "cache" / "kdmesh" / "store" / "v1").is_dir()


@pytest.mark.parametrize("refresh", ["once", "step"])
def test_a_teacher_of_which_all_is_there_is_not_loaded(refresh: str, tmp_path: Path) -> None:
    """Its file is hashed, to the same number; it stays a reference in the run's folder."""
    trained = mesh(teacher={"update": "grad"}).run(backend="inline", out=tmp_path, store="off")
    path = trained.folder / "agents" / "t" / "model.safetensors"
    teacher = {"weights": str(path), "seed": None}
    whole = said(run(mesh(teacher=teacher, flow={"refresh": refresh}), "off"))
    made: list[dict[str, Any]] = []
    for number in range(2):
        spec = parse({**mesh(teacher=teacher, flow={"refresh": refresh})._fields})
        request = Request(spec, "inline", table=table(), store=str(tmp_path / "kept"), out=tmp_path / str(number))
        summary, folder, _ = run_once(request)
        made.append(summary)
        assert said(summary) == whole and folder is not None
        assert kdmesh.load(folder.root / "agents" / "t") is not None
    cold, warm = made
    assert (cold["store"]["not_loaded"], warm["store"]["not_loaded"]) == ([], ["t"])
    assert cold["agents"]["t"]["latency_ms"] > 0 and warm["agents"]["t"]["latency_ms"] is None
    assert warm["costs"]["agents"]["t"]["flops_why"].startswith("its weights were not read")
    again = mesh(teacher=teacher, flow={"refresh": refresh}).run(backend="inline", store=str(tmp_path / "kept"))
    assert torch.equal(again["t"].module(torch.ones(2, 8)), trained["t"].module(torch.ones(2, 8)))


def test_the_environment_says_how_large_a_store_may_become(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDMESH_STORE_LIMIT", "2k")
    full = run(mesh(), tmp_path / "full")
    assert full["store"]["all"]["written"] < 170 and any("limit of 2000 bytes" in note for note in full["notes"])
    for told in ("none", "1G"):
        monkeypatch.setenv("KDMESH_STORE_LIMIT", told)
        assert run(mesh(), tmp_path / told)["store"]["all"]["written"] == 170
    monkeypatch.setenv("KDMESH_STORE_LIMIT", "much")
    with pytest.raises(MeshError, match="KDMESH_STORE_LIMIT: 'much' is no amount"):
        run(mesh(), tmp_path)
