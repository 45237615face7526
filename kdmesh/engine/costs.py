"""What a run cost: seconds, memory, CPU seconds and energy, for the summary and ``costs.json``.

Energy is measured where the machine lets it be read; else it is a range, from CPU seconds and the watts of a core.
"""

from __future__ import annotations

import math
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdmesh.backends._base import wait
from kdmesh.errors import MeshError
from kdmesh.hosts.costs import peak
from kdmesh.hosts.profile import Row
from kdmesh.hosts.remote import RemoteHost
from kdmesh.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdmesh.backends._base import Work
    from kdmesh.engine.context import RunContext

WATTS = (3.0, 12.0)
"""Of one busy core: the rated power of current processors by their cores, from servers to desktops. Without memory,
cooling and what the machine needs when idle."""

WATTS_SET, CO2_SET = "KDMESH_WATTS_PER_CORE", "KDMESH_CO2_G_PER_KWH"
RAPL = Path("/sys/class/powercap")
JOULES = 3.6e6  # of a kWh
OBSERVERS = "observers"  # the kind, in a profile, of plugins that observe


def declared(environment: Mapping[str, str]) -> tuple[tuple[float, float], float | None]:
    """Watts of a busy core, lowest and highest, and grams of CO2 a kWh, None unless given. MeshError for odd values."""

    def numbers(name: str, most: int) -> list[float]:
        text = environment.get(name, "").strip()
        try:
            found = [float(part) for part in text.split("-")] if text else []
            if len(found) > most or not all(math.isfinite(one) and one >= 0 for one in found) or found != sorted(found):
                raise ValueError
        except ValueError:
            example = f"{name}=5, or a range {name}=4-9" if most > 1 else f"{name}=380"
            raise MeshError(f"{text!r} is no such number", where=name, instead=example) from None
        return found

    watts, grams = numbers(WATTS_SET, 2), numbers(CO2_SET, 1)
    return (watts[0], watts[-1]) if watts else WATTS, grams[0] if grams else None


class Meter:
    """Reads this machine's own counters of energy at the start, and again at the end."""

    def __init__(self, root: Path = RAPL) -> None:
        self.watts, self.grams = declared(os.environ)
        self._rapl = {zone: joules for zone in packages(root) if (joules := _read(zone / "energy_uj")) is not None}
        self._gpus = gpu_joules()
        self._cpu = time.process_time()

    def cpu(self) -> float:
        """CPU seconds of this process since the start."""
        return time.process_time() - self._cpu

    def energy(self, processes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Joules by their sources; ``processes``: all that took part."""
        used = list(processes)
        elsewhere = any(one["node"] != platform.node() for one in used)
        gpus = any(one["gpu_peak_bytes"] for one in used)
        parts: list[dict[str, Any]] = []
        joules = None if elsewhere else self._packages()
        if joules is not None:
            parts.append(_part("RAPL", "all processors of this machine, whoever used them", joules, joules))
        else:
            seconds = sum(one["cpu_s"] for one in used)
            low, high = self.watts
            about = f"{seconds:.1f} CPU seconds at {low:g} to {high:g} W a core"
            parts.append(_part("estimate", about, seconds * low, seconds * high))
        after = None if elsewhere else gpu_joules()
        if gpus and after is not None and self._gpus is not None:
            spent = after - self._gpus
            parts.append(_part("NVML", "all GPUs of this machine, whoever used them", spent, spent))
        found: dict[str, Any] = {
            "joules": [sum(part["joules"][end] for part in parts) for end in (0, 1)],
            "by": parts,
            "lacks": "the GPUs, whose counters cannot be read" if gpus and len(parts) == 1 else None,
        }
        if self.grams is not None:
            found["co2_grams"] = [joules / JOULES * self.grams for joules in found["joules"]]
            found["co2_grams_per_kwh"] = self.grams
        return found

    def _packages(self) -> float | None:
        """Joules of the processors since the start; None where they cannot be read."""
        total = 0.0
        for zone, before in self._rapl.items():
            after, most = _read(zone / "energy_uj"), _read(zone / "max_energy_range_uj")
            if after is None:
                return None
            total += after - before + ((most or 0.0) if after < before else 0.0)  # the counter begins anew
        return total if self._rapl else None


def packages(root: Path) -> list[Path]:
    """The zones of whole processors; those within them would count twice."""
    return sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1)


def _read(path: Path) -> float | None:
    """A counter in joules, of a file in microjoules; None where it cannot be read."""
    try:
        return int(path.read_text()) / 1e6
    except (OSError, ValueError):
        return None


def gpu_joules() -> float | None:
    """What the counters of all NVIDIA GPUs here say, in joules; None without them or without nvidia-ml-py."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            gpus = [pynvml.nvmlDeviceGetHandleByIndex(at) for at in range(pynvml.nvmlDeviceGetCount())]
            return sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(one) for one in gpus) / 1e3 if gpus else None
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def _part(source: str, about: str, low: float, high: float) -> dict[str, Any]:
    return {"source": source, "about": about, "joules": [low, high]}


def counted(run: RunContext, meter: Meter, steps: int) -> Work[dict[str, Any]]:
    """The costs of a run from when its hosts were opened, while these are still there: the summary's ``costs``.

    ``steps``: those that are done, of all stages, by which a profile divides.
    """
    agents: dict[str, dict[str, Any]] = {}
    combining: dict[str, float] = {}
    here = (platform.node(), os.getpid())
    own: dict[str, Any] = {"node": here[0], "process": here[1], "peak_bytes": peak(), "gpu_peak_bytes": {}}
    processes = {here: {**own, "cpu_s": meter.cpu(), "hosts": list[str](), "driver": True}}
    hosts, rows = list(run.plan.hosts), list[Row]()
    parts = yield from wait(run.backend.submit(host, RemoteHost.costs) for host in hosts)
    for host, part in zip(hosts, parts, strict=True):
        process = part["process"]
        rows += part["profile"]
        known = processes.setdefault((process["node"], process["process"]), {**process, "hosts": [], "driver": False})
        known["hosts"].append(host)
        known["gpu_peak_bytes"] |= process["gpu_peak_bytes"]
        for name, (flops, why) in part["flops"].items():
            agents[name] = {"flops": flops, **({"flops_why": why} if why else {}), "teaching_s": 0.0, "training_s": 0.0}
        for purpose, nodes in part["seconds"].items():
            for node, seconds in nodes.items():
                if node in run.plan.consensus:
                    combining[node] = combining.get(node, 0.0) + seconds
                else:
                    agents[node][f"{purpose}_s"] += seconds
    energy = meter.energy(processes.values())
    shown = ("hosts", "driver", "cpu_s", "peak_bytes", "gpu_peak_bytes")
    return {
        "agents": agents,
        "consensus": {name: {"combining_s": seconds} for name, seconds in combining.items()},
        "processes": [{key: one[key] for key in shown} for one in processes.values()],
        "energy": energy,
        **({"plugins": _profile([*rows, *run.observing.rows()], steps)} if run.observing is not None else {}),
    }


def _profile(rows: Iterable[Row], steps: int) -> list[dict[str, Any]]:
    """What was called of each offer and observer, by kind and name, in all processes: ``calls``, ``seconds`` and
    ``seconds_a_step``, and ``from``, the distribution. Those that took longest come first.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        spent = found.setdefault((row.kind, row.name), [0, 0.0])
        spent[0] += row.calls
        spent[1] += row.seconds

    def source(kind: str, name: str) -> str:
        if kind == OBSERVERS:
            return name.partition(":")[0]
        return str(registry().origin(kind, name) or "kdmesh")

    return [
        {
            "kind": kind,
            "name": name.rpartition(": ")[2],
            "from": source(kind, name),
            "calls": int(calls),
            "seconds": seconds,
            "seconds_a_step": seconds / max(1, steps),
        }
        for (kind, name), (calls, seconds) in sorted(found.items(), key=lambda one: -one[1][1])
    ]
