"""What a run cost: counted once by every host, kept over interruptions, and apart from its results."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import kdmesh
from kdmesh.contracts.run_files import COSTS
from kdmesh.engine import costs
from kdmesh.engine.costs import CO2_SET, WATTS, WATTS_SET, Meter, declared
from kdmesh.errors import MeshError
from kdmesh.hosts.costs import Clock, flops


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("placement", ["together", "spread"])
def test_every_agent_has_its_share_and_a_process_is_counted_once(mesh, tmp_path, placement):
    made = mesh(["t", "s", "u"], placement=placement)
    made.connect("ensemble", teachers=["t", "u"], student="s")
    folder = Path(made.run(backend="inline", out=tmp_path).folder)
    found, results = summary(folder)["costs"], (folder / "results.json").read_text()
    assert json.loads((folder / COSTS).read_text()) == found and "energy" not in results
    mlp = 2 * (8 * 8 + 8 * 3)  # a multiplication and an addition for each weight
    assert {name: one["flops"] for name, one in found["agents"].items()} == {"t": mlp, "s": mlp, "u": mlp}
    assert all(one["training_s"] > 0 for one in found["agents"].values())
    assert found["agents"]["t"]["teaching_s"] > 0 and found["agents"]["s"]["teaching_s"] == 0
    (process,) = found["processes"]
    assert process["driver"] and sorted(process["hosts"]) == sorted(made.plan().hosts)
    assert process["cpu_s"] > 0
    assert process["peak_bytes"] > 2**20 and process["gpu_peak_bytes"] == {}


def test_seconds_are_kept_in_checkpoints(mesh, opened):
    made = mesh(["a"], train={"steps": 4})
    run, hosts = opened(made)
    (host,), (stage,) = hosts.values(), run.plan.stages
    host.start(stage.name, {"a": 4})
    spent = host.seconds_of(stage.name)
    spent.add("training", "a", 2.5)
    spent.add("teaching", "a", 0.5)
    content = host.save(stage.name, None)
    _, others = opened(made)
    (other,) = others.values()
    other.start(stage.name, {"a": 4})
    other.load(stage.name, content)
    assert other.seconds[stage.name] == spent


class Odd(nn.Module):
    """A model whose forward is no operation that torch counts, or fails."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails, self.scale = fails, nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fails:
            raise RuntimeError("no forward\nof one sample")
        return x[:, :3] * self.scale


@pytest.mark.parametrize(("fails", "why"), [(True, "RuntimeError: no forward"), (False, "torch counts none")])
def test_what_cannot_be_counted_has_no_figure_but_a_reason(mesh, opened, fails, why):
    module = Odd(False)
    _, hosts = opened(mesh({"a": {"model": module}}))
    (host,) = hosts.values()
    host.agents["a"].module.fails = fails
    assert flops(host, host.agents["a"])[0] is None
    assert flops(host, host.agents["a"])[1].startswith(why)


def test_what_a_fragment_took_on_a_gpu_is_shared_out_by_launches(monkeypatch):
    times = iter([10.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    clock = Clock(3, torch.device("cuda", 0))
    clock.spent[:] = [0.5, 1.5, 0.0]
    assert clock.stop() == [1.0, 3.0, 0.0]


def used(cpu_s: float = 100.0, node: str | None = None, **gpus: int) -> dict[str, Any]:
    return {"node": node or platform.node(), "cpu_s": cpu_s, "gpu_peak_bytes": gpus}


def zone(root: Path, name: str, joules: float) -> None:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")


def test_energy_is_read_where_it_can_be_and_else_a_range(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "gpu_joules", lambda: None)
    none = Meter(tmp_path / "none").energy([used()])
    assert none["joules"] == [100 * WATTS[0], 100 * WATTS[1]] and none["by"][0]["source"] == "estimate"
    assert "3 to 12 W a core" in none["by"][0]["about"] and "co2_grams" not in none
    zone(tmp_path, "intel-rapl:0", 5)
    zone(tmp_path, "intel-rapl:0:0", 4)  # a part of the one above
    zone(tmp_path, "intel-rapl:1", 990)
    meter = Meter(tmp_path)
    zone(tmp_path, "intel-rapl:0", 25)
    zone(tmp_path, "intel-rapl:1", 2)  # its counter began anew at 1,000 J
    found = meter.energy([used()])
    assert found["joules"] == [32.0, 32.0] and found["by"][0]["source"] == "RAPL"
    assert meter.energy([used(), used(node="another")])["by"][0]["source"] == "estimate"
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.energy([used()])["by"][0]["source"] == "estimate"


def test_energy_of_gpus_is_read_or_said_to_lack(tmp_path, monkeypatch):
    counters = iter([7.0, 57.0])
    monkeypatch.setattr(costs, "gpu_joules", lambda: next(counters))
    found = Meter(tmp_path).energy([used(0.0, **{"0": 5})])
    assert found["joules"] == [50.0, 50.0] and found["lacks"] is None
    monkeypatch.setattr(costs, "gpu_joules", lambda: None)
    assert "GPUs" in Meter(tmp_path).energy([used(0.0, **{"0": 5})])["lacks"]


class Nvml(SimpleNamespace):
    """nvidia-ml-py of a machine with two GPUs, whose counters are in millijoules."""

    NVMLError = type("NVMLError", (Exception,), {})

    def __init__(self, *millijoules: int, fails: str = "") -> None:
        def call(name: str, value: Any = None) -> Any:
            if name == fails:
                raise self.NVMLError(name)
            return value

        super().__init__(
            nvmlInit=lambda: call("init"),
            nvmlShutdown=lambda: call("shutdown"),
            nvmlDeviceGetCount=lambda: call("count", len(millijoules)),
            nvmlDeviceGetHandleByIndex=lambda at: call("handle", millijoules[at]),
            nvmlDeviceGetTotalEnergyConsumption=lambda handle: call("energy", handle),
        )


def test_counters_of_gpus_are_millijoules_of_all_of_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(1500, 2500))
    assert costs.gpu_joules() == 4.0
    for one in (Nvml(), Nvml(1500, fails="init"), Nvml(1500, fails="energy"), None):
        monkeypatch.setitem(sys.modules, "pynvml", one)
        assert costs.gpu_joules() is None


def test_watts_and_intensity_are_declared_by_the_environment(tmp_path, monkeypatch, mesh):
    assert declared({}) == (WATTS, None)
    assert declared({WATTS_SET: "5", CO2_SET: "400"}) == ((5.0, 5.0), 400.0)
    monkeypatch.setenv(WATTS_SET, "36-72")
    monkeypatch.setenv(CO2_SET, "500")
    monkeypatch.setattr(costs, "gpu_joules", lambda: None)
    found = Meter(tmp_path).energy([used()])  # 100 s at 36 W: a thousandth of a kWh
    assert found["joules"] == [3600.0, 7200.0] and found["co2_grams"] == [0.5, 1.0]
    for name, text in ((WATTS_SET, "9-4"), (WATTS_SET, "1-2-3"), (WATTS_SET, "-4"), (CO2_SET, "1-2"), (CO2_SET, "nan")):
        with pytest.raises(MeshError, match="no such number"):
            declared({name: text})
    monkeypatch.setenv(WATTS_SET, "much")
    with pytest.raises(MeshError, match=WATTS_SET):
        mesh(["a"]).run(backend="inline")


def test_a_run_without_a_folder_has_costs_too(mesh):
    assert isinstance(mesh(["a"]).run(backend="inline"), kdmesh.api.Result)
