"""Seeds and controls are one run: broken off anywhere it goes on to the table of the unbroken one, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import kdmesh
from kdmesh.backends.inline import InlineBackend
from kdmesh.cli import main
from kdmesh.engine.sums import fault
from kdmesh.errors import MeshError, RunFailed
from kdmesh.streams.table import Table

MESH = """
name: small
data: {dataset: digits, train: 60, validation: 40, test: 40}
agents: {t1: {model: {mlp: {hidden: [16]}}}, t2: {model: {mlp: {hidden: [8]}}}, s: {model: {mlp: {hidden: [4]}}}}
connect: [{ensemble: {teachers: [t1, t2], student: s}}]
train: {epochs: 1, batch_size: 30, optimizer: {adamw: {lr: 1e-2}}}
"""
LAST = ("config.json", "README.md", "sums.json", "results.csv", "results.json")  # the last files, beside the summary
ASKED = ("--backend", "inline", "--seeds", "2", "--controls")


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def command(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run a command here. ``last``: the part, from 1, and the call in it at which the process is gone.

    Returns the exit code, what it printed and what it said.
    """
    (tmp_path / "mesh.yaml").write_text(MESH, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    opened, called = InlineBackend.open, InlineBackend.call

    def run(*arguments: str, last: tuple[int, int] = (0, 0)) -> tuple[int, str, str]:
        part, calls = 0, 0

        def open_(self: Any, *args: Any) -> None:
            nonlocal part, calls
            part, calls = part + 1, 0
            opened(self, *args)

        def call(self: Any, *args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if (part, calls) == last:
                raise Killed
            return called(self, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(InlineBackend, "open", open_)
            patch.setattr(InlineBackend, "call", call)
            code = main(list(arguments))
        out, said = capsys.readouterr()
        return code, out, said

    return run


def tables(root: Path) -> tuple[str, str]:
    return (root / "results.json").read_text(encoding="utf-8"), (root / "results.csv").read_text(encoding="utf-8")


def printed(text: str) -> list[str]:
    """What a run prints, but for the last line: folder and seconds."""
    return text.splitlines()[:-1]


def test_broken_off_anywhere_it_ends_with_the_table_of_the_unbroken_one(command: Any, tmp_path: Path) -> None:
    code, whole, _ = command("run", "mesh.yaml", "--out", "whole", *ASKED)
    assert code == 0
    (root,) = tmp_path.glob("whole/*/*")
    for last in ((2, 6), (4, 20)):  # in a control, and in a seed after it
        code, _, said = command("run", "mesh.yaml", "--out", f"{last}", *ASKED, last=last)
        (folder,) = tmp_path.glob(f"{last}/*/*")
        assert code == 130 and said.splitlines()[-1] == (
            f"kdmesh: interrupted; go on with: kdmesh resume {folder.relative_to(tmp_path)}"
        )
        assert "failed" not in said and not (folder / "results.json").exists()
        code, out, said = command("resume", str(folder))
        assert code == 0, said
        assert printed(out) == printed(whole) and tables(folder) == tables(root)
    code, _, said = command("resume", str(folder))
    assert code == 2 and "this run has finished" in said


def test_a_signal_in_the_last_chunk_of_a_part_begins_no_other(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdmesh.hosts.host import Host

    saved = Host.save_agent

    def save(self: Host, *args: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(Host, "save_agent", saved)
        return saved(self, *args)

    monkeypatch.setattr(Host, "save_agent", save)
    code, _, said = command("run", "mesh.yaml", "--out", "runs", *ASKED)
    (root,) = tmp_path.glob("runs/*/*")
    assert code == 130 and said.splitlines()[-1].startswith("kdmesh: interrupted; go on with: kdmesh resume"), said
    assert (root / "seeds" / "0" / "summary.json").exists()
    assert not (root / "seeds" / "0" / "controls").exists() and not (root / "seeds" / "1").exists()


def test_a_folder_holds_every_part_and_a_part_points_to_the_whole(command: Any, tmp_path: Path) -> None:
    assert command("run", "mesh.yaml", "--out", "runs", *ASKED, last=(2, 4))[0] == 130
    (root,) = tmp_path.glob("runs/*/*")
    assert [path.name for path in (root / "seeds").iterdir()] == ["0"]
    (control,) = (root / "seeds" / "0" / "controls").iterdir()
    for part in (root / "seeds" / "0", control):
        code, _, said = command("resume", str(part))
        assert code == 2 and f"this is a part of the run {root}" in said and f"instead: resume {root}" in said
    moved = Path(shutil.move(root, tmp_path / "moved"))  # controls read the teachers' files in it
    assert command("resume", str(moved))[0] == 0
    assert sorted(path.name for path in (moved / "seeds" / "1" / "controls").iterdir()) == ["s-alone", "s-best-teacher"]
    loaded = kdmesh.load(moved / "seeds" / "1" / "controls" / "s-alone" / "agents" / "s")
    assert loaded(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_one_seed_keeps_its_table_too(command: Any, tmp_path: Path) -> None:
    assert command("run", "mesh.yaml", "--out", "runs", "--backend", "inline")[0] == 0
    (root,) = tmp_path.glob("runs/*/*")
    found, sheet = tables(root)
    table = json.loads(found)
    assert table["metric"] == "accuracy" and table["runs"][0]["agents"].keys() == {"t1", "t2", "s"}
    test = table["runs"][0]["agents"]["s"]["metrics"]["test"]["accuracy"]
    assert sheet.splitlines()[0] == "seed,trained,node,role,split,metric,value"
    assert f"0,mesh,s,student,test,accuracy,{test!r}" in sheet.splitlines()
    assert not (root / "seeds").exists() and not (root / "controls").exists()


def test_a_seed_that_fails_does_not_keep_the_others_from_their_table(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdmesh.hosts.host import Host

    inner = Host.begin

    def begin(self: Host, stage: str, *args: Any) -> Any:
        if self.plan.spec.seed == 1 and stage == "s" and self.plan.spec.name == "small":
            raise RunFailed("the loss became nan", where="agents.s", instead="a smaller learning rate")
        return inner(self, stage, *args)

    monkeypatch.setattr(Host, "begin", begin)
    code, out, said = command("run", "mesh.yaml", "--out", "runs", "--backend", "inline", "--seeds", "3")
    (root,) = tmp_path.glob("runs/*/*")
    assert code == 1 and "seed 1 failed: " in said
    assert said.splitlines()[-1] == (
        f"everything else is in {root.relative_to(tmp_path)}; to try again what failed: "
        f"kdmesh resume {root.relative_to(tmp_path)}"
    )
    assert "2 seeds" in out
    assert list(json.loads((root / "results.json").read_text(encoding="utf-8"))["failed"]) == ["seed 1"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("resume", str(root))
    assert code == 0 and "3 seeds" in out
    assert [run["seed"] for run in json.loads((root / "results.json").read_text(encoding="utf-8"))["runs"]] == [0, 1, 2]


def data() -> Table:
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    part = (x, x[:, :3].argmax(1))
    return kdmesh.data(part, part, part)


def given(**more: Any) -> kdmesh.Mesh:
    """Two teachers and a student given as modules; fields of the second teacher."""
    torch.manual_seed(0)
    made = kdmesh.Mesh(data=data(), train={"epochs": 1, "batch_size": 30})
    made.agent("t1", nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    made.agent("t2", nn.Linear(6, 3), **more)
    made.agent("s", nn.Linear(6, 3))
    made.connect("ensemble", teachers=["t1", "t2"], student="s")
    return made


def test_controls_of_modules_given_from_python(tmp_path: Path) -> None:
    result = given().run(backend="inline", out=tmp_path, controls=True, seeds=2)
    for one, seed in zip(result.seeds, (0, 1), strict=True):
        assert one.summary["seed"] == seed and one.folder == result.folder / "seeds" / str(seed)
        controls = one.summary["controls"]["s"]
        best = controls["best_teacher"]
        assert best["teacher"] == one.summary["best_teacher"] and best["test"]["accuracy"] >= 0
        saved = json.loads((one.folder / "controls" / "s-best-teacher" / "summary.json").read_text(encoding="utf-8"))
        teacher = saved["agents"][best["teacher"]]["weights_sha256"]
        assert teacher == one[best["teacher"]].weights_sha256
    assert result["s"] is result.seeds[0]["s"] and result.table["over_seeds"]["verdicts"]


def test_a_file_of_weights_goes_into_a_module_given_from_python(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(5)
    weights = nn.Linear(6, 3).state_dict()
    save_file(weights, tmp_path / "t2.safetensors")
    made = given(weights=str(tmp_path / "t2.safetensors"), update="frozen")
    found = made.run(backend="inline")["t2"].module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_a_run_from_python_goes_on_with_the_seeds_and_controls_it_was_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = given().run(out=tmp_path / "whole", seeds=2, controls=True)
    inner, calls = InlineBackend.call, []

    def call(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 60:
            raise KeyboardInterrupt
        return inner(self, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        patch.setattr(InlineBackend, "call", call)
        given().run(out=tmp_path / "cut", seeds=2, controls=True)
    (folder,) = tmp_path.glob("cut/*/*")
    assert str(caught.value) == f"go on with: the same mesh's run(resume=...), to resume {folder}"
    with pytest.raises(MeshError, match="was begun with seeds=2"):
        given().run(resume=folder, seeds=3)
    again = given().run(resume=folder)
    assert tables(folder) == tables(whole.folder)
    for one, other in zip(again.seeds, whole.seeds, strict=True):
        assert {name: agent.weights_sha256 for name, agent in one.agents.items()} == {
            name: agent.weights_sha256 for name, agent in other.agents.items()
        }


@pytest.mark.parametrize(
    ("full", "last"),
    [
        ({"mesh.yaml"}, "instead: free disk space, then run again"),
        ({"manifest.json"}, "instead: free disk space, then run again"),
        ({"summary.json", "error.txt"}, "go on with: kdmesh resume {}"),
        *(({name, "error.txt"}, "go on with: kdmesh resume {}") for name in LAST),
    ],
)
def test_a_full_disk_is_told_with_what_stands_and_how_to_go_on(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: set[str], last: str
) -> None:
    from kdmesh import files

    inner = files.write

    def write(path: Path, content: bytes | str) -> None:
        if path.name in full and "checkpoints" not in path.parts:
            raise OSError(28, "No space left on device")
        inner(path, content)

    with monkeypatch.context() as patch:
        for module in ("files", "engine.folder", "engine.launch", "hosts.export"):
            patch.setattr(f"kdmesh.{module}.write", write)
        code, _, said = command("run", "mesh.yaml", "--out", "runs", "--backend", "inline")
    (root,) = tmp_path.glob("runs/*/*")
    assert code == 1 and "No space left" in said and "Traceback" not in said
    assert said.splitlines()[-1].endswith(last.format(root.relative_to(tmp_path)))
    if "resume" in last:
        assert not (root / "sums.json").exists() or fault(root, ["results.csv", "results.json"])
        assert command("resume", str(root))[0] == 0 and tables(root)[0]
        assert fault(root, ["summary.json", "results.csv", "results.json"]) == ""


def test_the_log_of_several_seeds_is_their_lock(command: Any, tmp_path: Path) -> None:
    from kdmesh.engine.events import Events

    assert command("run", "mesh.yaml", "--out", "runs", *ASKED, last=(1, 4))[0] == 130
    (root,) = tmp_path.glob("runs/*/*")
    held = Events(root / "events.jsonl")
    try:
        code, _, said = command("resume", str(root))
        assert code == 2 and "another process is using this run's folder" in said
    finally:
        held.close()


def test_a_run_is_held_from_its_first_part_to_its_last_file(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between parts, too, and while a single seed's controls train: another process is refused, and told who it is."""
    from kdmesh.engine.experiment import Experiment
    from kdmesh.engine.lock import held

    seen: list[str] = []
    control, close = Experiment._control, Experiment._close

    def look(root: Path, when: str) -> None:
        with pytest.raises(MeshError, match="another process is using this run's folder") as caught, held(root):
            pass  # a file that is opened anew is locked against its own process as well
        assert f"process {os.getpid()} on " in caught.value.what
        seen.append(when)

    def control_(self: Experiment, *args: Any) -> Any:
        look(self.outcome.folder.root, "control")
        return control(self, *args)

    def close_(self: Experiment) -> Any:
        look(self.outcome.folder.root, "end")
        return close(self)

    monkeypatch.setattr(Experiment, "_control", control_)
    monkeypatch.setattr(Experiment, "_close", close_)
    assert command("run", "mesh.yaml", "--out", "runs", "--backend", "inline", "--controls")[0] == 0
    (root,) = tmp_path.glob("runs/*/*")
    assert seen == ["control", "control", "end"]
    (root / "results.csv").unlink()
    with held(root):
        code, _, said = command("resume", str(root))
        assert code == 2 and f"using this run's folder: process {os.getpid()} on " in said
    assert command("resume", str(root))[0] == 0


def measured(text: str) -> dict[str, Any]:
    """A summary without what is measured in seconds."""
    found = json.loads(text)
    del found["wall_s"], found["costs"]
    for facts in found["agents"].values():
        del facts["latency_ms"]
    return found


LOSSES: list[tuple[str, Callable[[Path], Any]]] = [
    ("seeds/1/agents/s/README.md", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    ("seeds/1/controls/s-alone/summary.json", lambda path: path.write_text("{}", encoding="utf-8")),
    ("results.json", lambda path: path.write_text(path.read_text(encoding="utf-8").replace("0.", "1."))),
    ("seeds/0/agents/t1/model.safetensors", Path.unlink),
    ("seeds/1/summary.json", lambda path: path.write_bytes(path.read_bytes()[:99])),
    ("seeds/1/controls/s-alone/agents/s/config.json", lambda path: path.write_bytes(b"")),
    ("seeds/1/controls/s-alone/sums.json", Path.unlink),
    ("results.csv", Path.unlink),
    ("sums.json", lambda path: path.write_text("[", encoding="utf-8")),
]


@pytest.mark.parametrize("count", [3, pytest.param(len(LOSSES), marks=pytest.mark.slow)])
def test_a_finished_run_that_lost_a_file_is_completed_to_equal_bytes(command: Any, tmp_path: Path, count: int) -> None:
    """A file of a seed, of a control and of the whole; at length more of each."""
    assert command("run", "mesh.yaml", "--out", "runs", *ASKED)[0] == 0
    (root,) = tmp_path.glob("runs/*/*")
    kept = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and "checkpoints" not in path.parts}
    for path, lose in LOSSES[:count]:
        lose(root / path)
        code, _, said = command("resume", str(root))
        assert code == 0, (path, said)
        for one, before in kept.items():
            if one.name == "summary.json":
                assert measured(one.read_text(encoding="utf-8")) == measured(before.decode()), (path, one)
            elif one.name not in ("events.jsonl", "sums.json", "costs.json"):
                assert one.read_bytes() == before, (path, one)
        code, _, said = command("resume", str(root))
        assert code == 2 and "this run has finished" in said


@pytest.mark.slow
def test_killed_in_a_control_it_ends_with_the_table_of_the_unbroken_one(tmp_path: Path) -> None:
    from commands import Command

    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = Command(tmp_path / "whole", MESH, *ASKED)
    assert whole.end()[0] == 0
    cut = Command(tmp_path / "cut", MESH, *ASKED)
    cut.until("seed 0, s by the best teacher only")
    cut.process.send_signal(signal.SIGKILL)
    assert cut.end()[0] == -signal.SIGKILL
    cut.resume()
    code, said = cut.end()
    assert code == 0, said
    (one,), (other,) = whole.out.glob("*/*"), cut.out.glob("*/*")
    assert tables(one) == tables(other)


@pytest.mark.parametrize("seeds", ["two", 0, None])
def test_a_manifest_that_asks_for_no_number_of_seeds_is_refused(command: Any, tmp_path: Path, seeds: Any) -> None:
    assert command("run", "mesh.yaml", "--out", "runs", "--backend", "inline", last=(1, 4))[0] == 130
    (path,) = tmp_path.glob("runs/*/*/manifest.json")
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["begun"]["seeds"] = seeds
    path.write_text(json.dumps(facts), encoding="utf-8")
    code, _, said = command("resume", str(path.parent))
    assert code == 2 and "seeds" in said and "Traceback" not in said


@pytest.mark.parametrize("peers", [False, True])
def test_controls_of_agents_with_settings_of_their_own(tmp_path: Path, peers: bool) -> None:
    """A teacher that is frozen for a control has no settings of learning, and weights that begin in one way."""
    mesh = kdmesh.Mesh(data="digits", train={"epochs": 1})
    for number, name in enumerate(("a", "b", "s")):
        train = {"epochs": 1, "accumulate": 2, "schedule": "cosine"}
        mesh.agent(name, {"mlp": {"hidden": [4]}}, seed=number, train=train)
    mesh.connect("ensemble", teachers=["a", "b"], student="s", consensus="mean", objective="kl")
    if peers:
        mesh.agent("p", {"mlp": {"hidden": [4]}}, seed=9)
        mesh.consensus("c", "mean", include_self=False)
        mesh.flow(["s", "p", "a"], "c")
        mesh.flow("c", ["s", "p"], objective="kl")
    controls = mesh.run(backend="inline", out=tmp_path, controls=True).summary["controls"]
    assert {"test", "validation"} <= set(controls["s"]["best_teacher"]), controls


def test_what_the_check_finds_in_the_data_is_told_once_not_by_every_part(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    rows = "".join(f"{i % 7},{i % 5},word{i},{i % 2}\n" for i in range(120))
    (tmp_path / "data.csv").write_text(f"x,y,name,label\n{rows}")
    mesh = MESH.replace("digits, train: 60", "{csv: {path: data.csv}}, train: 40")
    (tmp_path / "mesh.yaml").write_text(mesh)
    code, _, said = command("run", "mesh.yaml", "--backend", "inline", "--seeds", "2")
    assert code == 0 and said.count("columns that are left out") == 1
    logs = [tmp_path.joinpath(*next(tmp_path.glob("runs/*/*")).parts, "seeds", seed, "events.jsonl") for seed in "01"]
    assert ["columns that are left out" in log.read_text() for log in logs] == [True, True]
