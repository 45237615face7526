"""What plugins take is counted where a run asks for it, and changes no bits; else nothing is wrapped."""

from __future__ import annotations

import io
import json

import pytest

from kdmesh.cli import main
from kdmesh.hookspecs import hookimpl
from kdmesh.hosts.host import Host
from kdmesh.hosts.profile import Profile
from kdmesh.plugins import registry
from kdmesh.report import grid, profile

MLP = {"mlp": {"hidden": [8]}}
MESH = {
    "name": "counted",
    "data": {"dataset": "digits", "train": 128},
    "agents": {
        "a": {"model": MLP, "view": {"augment": ["shift"], "draws": 1}},
        "b": {"model": MLP},
        "s": {"model": MLP},
    },
    "connect": [{"ensemble": {"teachers": ["a", "b"], "student": "s"}}],
    "train": {"epochs": 1, "batch_size": 32},
}


class Watching:
    @hookimpl
    def kdmesh_trained(self):
        pass


@pytest.fixture
def watched():
    manager = registry().manager
    watching = Watching()
    manager.register(watching, name="kdmesh-watch 1.0: watch")
    yield
    manager.unregister(watching)


def run(tmp_path, capsys, name, *more):
    """Run the mesh; its summary and what was printed."""
    file = tmp_path / "mesh.json"
    file.write_text(json.dumps(MESH))
    words = ["run", str(file), "--out", str(tmp_path / name), "--backend", "inline", "--quiet", "--no-report", *more]
    assert main(words) == 0
    (summary,) = (tmp_path / name).glob("*/*/summary.json")
    return json.loads(summary.read_text()), capsys.readouterr().out


def test_each_kind_is_counted_and_no_bits_change(watched, tmp_path, capsys):
    plain, printed = run(tmp_path, capsys, "plain")
    assert "plugins" not in plain["costs"] and "ms a step" not in printed
    counted, printed = run(tmp_path, capsys, "counted", "--profile-plugins")
    rows = {(row["kind"], row["name"]): row for row in counted["costs"]["plugins"]}
    kinds = {"objectives", "consensus", "views", "observers"}
    assert {kind for kind, _ in rows} == kinds
    watch = rows["observers", "watch"]
    assert (watch["from"], watch["calls"]) == ("kdmesh-watch 1.0", 3)  # the end of each stage: shorter than 16 steps
    labels = rows["objectives", "ce"]
    steps = 4 * 3  # four batches, three stages
    assert labels["from"] == "kdmesh" and labels["calls"] == steps and rows["views", "shift"]["calls"] >= 4
    assert all(row["seconds"] > 0 and row["seconds_a_step"] == row["seconds"] / steps for row in rows.values())
    _, _, table = printed.partition("\nPlugins\n")
    assert "ms a step" in table and "kdmesh-watch 1.0" in table and max(map(len, table.splitlines())) <= 80
    for name, agent in plain["agents"].items():
        assert counted["agents"][name]["weights_sha256"] == agent["weights_sha256"]


def test_gates_are_counted(tmp_path, capsys, monkeypatch):
    flows = [
        {"from": "labels", "to": "a", "objective": "ce"},
        {"from": "labels", "to": "s", "objective": "ce", "gate": "small_loss"},
    ]
    train = {"epochs": 1, "batch_size": 32}
    agents = {"a": {"model": MLP}, "s": {"model": MLP}}
    mesh = {"name": "gated", "data": MESH["data"], "agents": agents, "flows": flows, "train": train}
    monkeypatch.setitem(globals(), "MESH", mesh)
    counted, _ = run(tmp_path, capsys, "gated", "--profile-plugins")
    (row,) = [row for row in counted["costs"]["plugins"] if row["kind"] == "gates"]
    assert (row["name"], row["calls"]) == ("small_loss", 4)


def test_nothing_is_wrapped_unless_asked_for():
    def call():
        pass

    host = object.__new__(Host)
    host.profile = None
    assert host.timed("objectives", "kl", call) is call
    host.profile = Profile()
    assert host.timed("objectives", "kl", call) is not call and host.profile.rows() == [("objectives", "kl", 0, 0.0)]


def test_a_call_that_raises_is_counted():
    counted = Profile()
    with pytest.raises(ZeroDivisionError):
        counted.timed("views", "blur", lambda: 1 / 0)()
    (row,) = counted.rows()
    assert row.calls == 1 and row.seconds > 0


def test_there_is_a_table_for_each_seed():
    row = {"kind": "views", "name": "blur", "from": "kdmesh-blur 1.0", "calls": 1200, "seconds": 0.5,
           "seconds_a_step": 0.00125}  # fmt: skip
    out = io.StringIO()
    grid.show(out, *profile.tables({0: {"costs": {"plugins": [row]}}, 1: {"costs": {"plugins": [row]}}}), width=80)
    assert "Plugins, seed 0" in out.getvalue() and "Plugins, seed 1" in out.getvalue() and "1.250" in out.getvalue()
    assert profile.tables({0: {"costs": {}}}) == []
