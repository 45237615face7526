"""How long the agents of a run take to answer: each is measured in a fresh process, one after the other.

What was found is kept in ``latency.json`` after each, so that an interrupted measuring goes on where it was. It is
nothing that the run's weights or results depend on: the run has finished before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from kdmesh.contracts.run_files import LATENCY, RESOLVED
from kdmesh.engine.lock import held
from kdmesh.engine.stopping import terminable
from kdmesh.errors import MeshError
from kdmesh.files import read_json, write_json
from kdmesh.graph.planner import make_plan
from kdmesh.hosts.latency import BATCHES, BUDGET, WARM_UP, Order, machine
from kdmesh.hosts.preprocessing import Preprocessor
from kdmesh.hosts.source import Source
from kdmesh.plugins import registry
from kdmesh.report import run_folder
from kdmesh.report.latency import break_even, of_seed
from kdmesh.spec.code import refuse_code
from kdmesh.spec.read import read_mesh
from kdmesh.streams.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kdmesh.graph.plan import Plan
    from kdmesh.report.run_folder import RunFolder
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table

PATIENCE = 900.0  # seconds that one agent may take, loading and all
SHAPE = "input_shape"  # in an agent's config.json


@terminable()
def measure(
    folder: str | Path,
    told: Callable[[str], None] = lambda text: None,
    code: bool = True,
    warm_up: float = WARM_UP,
    budget: float = BUDGET,
) -> dict[str, Any]:
    """Measure every agent of a run's folder, or those that were not yet, and return what ``latency.json`` then holds.

    Of several seeds the first that finished is measured: the others' agents are of the same shapes. ``told`` hears a
    line per agent. ``code`` False refuses a run whose mesh names code. ``warm_up``, ``budget``: seconds of calls before
    any is timed, and that are, for each batch size. An agent that fails is noted under ``failed``.
    MeshError where nothing can be measured, and while another process is at work on the run; an interruption is raised
    once what it interrupted has ended.
    """
    run = run_folder.read(folder)
    with ExitStack() as holding:
        for root in filter(None, (run.path, run.whole)):
            holding.enter_context(held(root))
        part = of_seed(run)
        if part is None or part.summary is None:
            raise MeshError(
                "no seed of this run has been measured yet", file=str(run.path), instead=f"kdmesh resume {run.path}"
            )
        plan = make_plan(read_mesh(part.path / RESOLVED), registry())
        if not code:
            refuse_code(plan.spec, str(run.path))
        asked = {
            name: {**_identity(part, plan, name), "warm_up_s": warm_up, "budget_s": budget} for name in plan.spec.agents
        }
        found = _begun(run.path, part, asked)
        _all(part, plan, found, asked, told, lambda: write_json(run.path / LATENCY, found))
        found["break_even"] = break_even(part, found)
        write_json(run.path / LATENCY, found)
    return found


def _begun(root: Path, part: RunFolder, asked: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was measured before, of the same weights on the same machine, and nothing else."""
    assert part.summary is not None
    here = machine()
    found: dict[str, Any] = {
        "seed": part.summary.get("seed"),
        "machine": here,
        "inputs": {},
        "agents": {},
        "failed": {},
        "break_even": {},
    }
    before = read_json(root / LATENCY) or {}
    if before.get("machine") == here and before.get("seed") == found["seed"]:
        agents = before.get("agents")
        for name, one in agents.items() if isinstance(agents, dict) else ():
            if isinstance(one, dict) and name in asked and one.get("of") == asked[name]:
                found["agents"][name] = one
        found["inputs"] = before.get("inputs") or {}
    return found


def _identity(part: RunFolder, plan: Plan, agent: str) -> dict[str, Any]:
    """What a figure is of: the weights, and how the run has them compute."""
    assert part.summary is not None
    settings, known = plan.train(agent), part.summary["agents"].get(agent) or {}
    return {
        "weights_sha256": known.get("weights_sha256"),
        "device": settings.device,
        "threads": settings.threads or 1,
        "precision": settings.precision,
    }


def _all(
    part: RunFolder,
    plan: Plan,
    found: dict[str, Any],
    asked: dict[str, dict[str, Any]],
    told: Callable[[str], None],
    keep: Callable[[], None],
) -> None:
    """Measure the agents that are left, in order; ``asked``: by agent, what its figures are of."""
    left = [name for name in asked if name not in found["agents"]]
    if not left:
        told(f"every agent was measured before; to measure again, remove {LATENCY}")
        return
    inputs = _Inputs(plan)
    found["inputs"] = inputs.about
    how = part.manifest.get("begun")
    folders = how.get("beside") if isinstance(how, dict) else None
    beside = [one for one in folders or () if isinstance(one, str)]
    for number, name in enumerate(left, 1):
        folder, of = part.path / "agents" / name, asked[name]
        begun = time.perf_counter()
        try:
            if not folder.is_dir():
                raise MeshError("it has no folder: it was dropped, or somebody took it away")
            order = Order(
                str(folder.resolve()),
                of["device"],
                of["threads"],
                of["precision"],
                beside,
                warm_up=of["warm_up_s"],
                budget=of["budget_s"],
            )
            made = _fresh(*inputs.given(name, folder, order))
        except MeshError as error:
            found["failed"][name] = error.what
            told(f"{name} ({number} of {len(left)}): not measured: {error.what}")
        else:
            batches = {str(size): made.pop(str(size)) for size in BATCHES}
            took = round(time.perf_counter() - begun, 3)
            found["agents"][name] = {"of": of, **made, "seconds": took, "batches": batches}
            medians = ", ".join(f"{one['p50_ms']:.4g} ms at batch {size}" for size, one in batches.items())
            told(f"{name} ({number} of {len(left)}): {medians}")
        keep()


class _Inputs:
    """Samples as agents are measured on: of the test stream, else of the first of train and the others that there is.

    Of data given from Python nothing is left when the run has ended, nor of what agents see of each other: random
    numbers of the agents' input shape.
    """

    def __init__(self, plan: Plan) -> None:
        self.table: Table | None = None
        self.plan = plan
        self.seeing = plan.inputs.keys()  # agents that see what others say of samples
        self.streams: dict[str, Stream] = {}
        data = plan.spec.data
        if data is not None and not data.dataset.name.startswith("python:"):
            self.table, self.streams = Source().load(plan)
        self.stream = next((one for one in ("test", "train", *self.streams) if one in self.streams), None)
        self.about = {"stream": self.stream, "random": self.table is None}

    def given(self, agent: str, folder: Path, order: Order) -> tuple[Order, bytes]:
        """An agent's order, and the bytes that follow it."""
        if self.table is None or agent in self.seeing:
            shape = (read_json(folder / "config.json") or {}).get(SHAPE)
            if not isinstance(shape, list) or not all(isinstance(size, int) and 0 < size < 2**24 for size in shape):
                raise MeshError("its data were given from Python, and its folder tells no shape of inputs")
            return self._numbers(order, torch.randn(BATCHES[-1], *shape, generator=torch.Generator().manual_seed(0)))
        rows = self._rows(agent)
        if not len(rows):
            raise MeshError(f"it sees no sample of {self.stream}")
        if isinstance(self.table.x, Texts):
            return replace(order, texts=[asdict(one) for one in self.table.x[rows]]), b""
        return self._numbers(order, Preprocessor(self.plan, self.table, registry(), None).numbers(agent)[rows])

    def _rows(self, agent: str) -> Tensor:
        """The first samples that an agent may see of the stream; of another one where it has no part in that."""
        for name in dict.fromkeys([self.stream or "", *self.streams]):
            stream = self.streams.get(name)
            sees = stream is not None and stream.sees(agent)
            if stream is not None and sees and len(rows := stream.rows_for(agent)):
                return rows[: BATCHES[-1]]
        return torch.arange(0)

    @staticmethod
    def _numbers(order: Order, x: Tensor) -> tuple[Order, bytes]:
        content = save({"x": x.contiguous()})
        return replace(order, size=len(content)), content


def _fresh(order: Order, content: bytes) -> dict[str, Any]:
    """Measure in a process of its own; MeshError, with why, where that fails."""
    with _scratch() as out, _scratch() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "kdmesh.hosts.latency"],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=said,
            start_new_session=True,  # a Ctrl-C at the terminal reaches us, and we end it
        )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # it died as it started: its end says so
                process.stdin.write(order.line() + content)
                process.stdin.flush()
            process.wait(PATIENCE)  # its input stays open: it ends where that does
        except subprocess.TimeoutExpired:
            raise MeshError(f"it took more than {PATIENCE:g} s") from None
        finally:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                process.stdin.close()
        told, how = _last(out), process.returncode
        if "error" in told:
            raise MeshError(str(told["error"]))
        if not told:
            ended = f"was ended by signal {-how}" if how < 0 else f"ended with code {how}"
            raise MeshError(f"its process {ended}: {_line(said) or 'it said nothing'}")
        return told


def _scratch() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")


def _last(file: IO[str]) -> dict[str, Any]:
    """The object in the last line that a process wrote; an empty one where there is none."""
    with suppress(ValueError):
        found = json.loads(_line(file))
        if isinstance(found, dict):
            return found
    return {}


def _line(file: IO[str]) -> str:
    file.seek(0)
    return next((line.strip() for line in reversed(file.readlines()) if line.strip()), "")
