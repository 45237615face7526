"""What is written of real runs, by codecarbon itself where it is installed, and by a tracker with known figures."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import kdmesh
import pytest
from kdmesh.errors import MeshError
from kdmesh.plugins import Registry, registry

from kdmesh_codecarbon import plugin

SOURCE = str(Path(__file__).parent.parent / "src")


class Run(SimpleNamespace):
    """What a plugin is told of a run, as far as it is read."""

    __hash__ = object.__hash__


class Tracker:
    """Stands in for codecarbon's: a run took 0.001 kWh, most of it for memory."""

    kept: ClassVar[list[Tracker]] = []

    def __init__(self, **settings):
        self.settings, self.running = settings, False
        self._conf = {"hardware": ["RAM()", "CPU(Cpu Load)"]}
        self.kept.append(self)

    def start(self):
        self.running = True

    def stop(self):
        self.running = False
        self.final_emissions_data = SimpleNamespace(
            cpu_energy=0.00025, gpu_energy=0.0, ram_energy=0.00075, energy_consumed=0.001, duration=9, pue=1.0,
            cpu_model="A Processor",
        )  # fmt: skip


@pytest.fixture(autouse=True)
def built_in_only(monkeypatch):
    """Whatever is installed, a test registers the plugin itself."""
    monkeypatch.setenv("KDMESH_PLUGINS", "")
    monkeypatch.delenv("KDMESH_CO2_G_PER_KWH", raising=False)
    yield
    plugin._meters.clear()


@pytest.fixture
def tracked(monkeypatch):
    """The trackers that were made, of a codecarbon that is not asked for."""
    monkeypatch.setattr(Tracker, "kept", [])
    fake = SimpleNamespace(OfflineEmissionsTracker=Tracker, __version__="9.9")
    monkeypatch.setitem(sys.modules, "codecarbon", fake)
    monkeypatch.delitem(sys.modules, "kdmesh_codecarbon.meter", raising=False)
    yield Tracker.kept
    sys.modules.pop("kdmesh_codecarbon.meter", None)


@pytest.fixture
def observed():
    """A registry with this plugin."""
    manager = registry().manager
    manager.register(plugin)
    yield
    manager.unregister(plugin)


def run(out, steps=2):
    """Train a small model on part of the digits."""
    mesh = kdmesh.Mesh(
        name="small",
        data={"dataset": "digits", "train": 128},
        agents={"a": {"model": {"mlp": {"hidden": [8]}}}},
        train={"steps": steps},
    )
    return mesh.run(backend="inline", out=out)


def test_joules_are_those_of_the_record_and_co2_is_left_out(tracked, observed, tmp_path):
    result = run(tmp_path)
    found = json.loads((result.folder / "codecarbon.json").read_text())
    joules = {"cpu": 900.0, "gpu": 0.0, "ram": 2700.0, "total": 3600.0}
    assert found["joules"] == pytest.approx(joules) and found["source"] == "codecarbon 9.9"
    assert "CPU(Cpu Load)" in found["hardware"] and found["cpu"] == "A Processor"
    assert not [key for key in found if "co2" in key]
    (tracker,) = tracked
    assert not tracker.running and not plugin._meters
    assert tracker.settings["output_methods"] == [] and tracker.settings["emissions_endpoint"] is None


def test_co2_is_told_at_a_given_intensity_alone(tracked, observed, tmp_path, monkeypatch):
    monkeypatch.setenv("KDMESH_CO2_G_PER_KWH", "400")
    found = json.loads((run(tmp_path).folder / "codecarbon.json").read_text())
    assert found["co2_grams"] == pytest.approx(0.4) and found["co2_grams_per_kwh"] == 400
    assert tracked[0].settings["force_carbon_intensity_g_co2e_kwh"] == 400


def test_a_tracker_of_a_run_that_failed_is_stopped_when_the_next_begins(tracked, tmp_path):
    failed, after = Run(folder=tmp_path), Run(folder=None)
    plugin.kdmesh_run_started(failed)
    assert tracked[0].running
    plugin.kdmesh_run_started(after)
    plugin.kdmesh_run_finished(after, {})
    assert not tracked[0].running and list(tmp_path.iterdir()) == [] and len(tracked) == 1


def test_a_run_without_a_record_is_told(tracked, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Tracker, "stop", lambda self: None)  # as one does whose own start failed, in silence
    found, of = Registry([plugin]), Run(folder=tmp_path)
    found.observe("kdmesh_run_started", run=of)
    found.observe("kdmesh_run_finished", run=of, summary={})
    assert "gave no record" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_without_codecarbon_the_run_is_told_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    monkeypatch.delitem(sys.modules, "kdmesh_codecarbon.meter", raising=False)
    with pytest.raises(MeshError, match="pip install codecarbon"):
        plugin.kdmesh_run_started(Run(folder=tmp_path))
    found = Registry([plugin])
    found.observe("kdmesh_run_started", run=Run(folder=tmp_path))
    assert "pip install codecarbon" in capsys.readouterr().err


def test_the_hooks_are_read_without_torch_and_without_codecarbon():
    probe = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from kdmesh.plugins import Registry;"
        "from kdmesh_codecarbon import plugin; Registry([plugin]);"
        "print(sorted({'torch', 'codecarbon', 'numpy', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_codecarbon_itself_measures_without_a_network_and_changes_no_bits(tmp_path, monkeypatch, capsys):
    pytest.importorskip("codecarbon")
    without = run(tmp_path / "without")

    def shut(*_):
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", shut)
    monkeypatch.chdir(tmp_path)
    registry().manager.register(plugin)
    try:
        measured = run(tmp_path / "with")
    finally:
        registry().manager.unregister(plugin)
    found = json.loads((measured.folder / "codecarbon.json").read_text())
    joules = found["joules"]
    assert joules["total"] == pytest.approx(joules["cpu"] + joules["gpu"] + joules["ram"]) and joules["total"] > 0
    assert (
        found["duration_s"] > 0
        and found["source"].startswith("codecarbon 3")
        and any("CPU" in one for one in found["hardware"])
    )
    assert "codecarbon" not in capsys.readouterr().err
    assert measured["a"].weights_sha256 == without["a"].weights_sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["with", "without"]  # no file of its own
