"""What is exported is what was measured: a saved folder is read again and compared with the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from kdmesh.files import WEIGHTS
from kdmesh.hosts import loading
from kdmesh.hosts.agent import reseed
from kdmesh.hosts.compression.int8 import exact
from kdmesh.hosts.looked_up import lacking, looks_up
from kdmesh.hosts.modules import output
from kdmesh.hosts.precision import cast
from kdmesh.signals.compare import Comparison
from kdmesh.signals.lazy import dense
from kdmesh.text.probes import inference

if TYPE_CHECKING:
    from pathlib import Path

    from kdmesh.hosts.state import HostState

SAMPLES = 4


def prove(host: HostState, agent: str, root: Path, state: dict[str, Tensor], home: Path | None = None) -> Comparison:
    """Read an agent's folder as its user will, and compare one small batch with what the agent answers in eval mode.

    Where the class is not stored, the file is compared with the weights, ``state``. ``home``: the folder that ``root``
    will be, where it refers to files elsewhere.
    """
    one = host.agents[agent]
    host.threads(one.weights.settings.threads)
    rows = _rows(host, agent)
    own: Any = getattr(one.module, "proven", None)
    if own is not None and home is None:
        encoded = host.reading.encoded(agent, rows)
        with exact(one.module):  # other software reads whole weights, and rounds nothing
            found: Comparison = own(root, host.reading.encoder(agent), host.reading.given(agent, rows), encoded)
        return found
    if own is None and (host.reading.texts or not loading.loadable(host.reading.model(agent))):
        return _files(root, state)
    found = Comparison("kdmesh.load", len(rows))
    x, before = host.reading.samples(agent, rows).to(one.device), one.forwards
    read: Any = loading.load(root, home=home)
    module: nn.Module = (read.model if own is not None and host.reading.texts else read).to(one.device)
    with inference(one.module), cast(one.device.type, one.weights.settings.precision):
        reseed(host.seed, one.device)
        mine = dense(one.forward(x)[0])
        reseed(host.seed, one.device)
        found.add(mine, dense(output(module(x))), loose=False)
    one.forwards = before
    return found


def _files(root: Path, state: dict[str, Tensor]) -> Comparison:
    """Compare the weights themselves, one tensor at a time."""
    found = Comparison("weights")
    with safe_open(root / WEIGHTS, "pt") as file:
        stored = set(file.keys())
        wrong = sorted(stored ^ state.keys()) or [n for n in state if not _same(state[n], file.get_tensor(n))]
    if wrong:
        found.difference, found.problem = None, f"{wrong[0]} is not what it was"
    return found


def _same(one: Tensor, two: Tensor) -> bool:
    """Equal bits, NaN or not."""
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    return torch.equal(one.flatten().view(torch.uint8), two.flatten().view(torch.uint8))


def _rows(host: HostState, agent: str) -> Tensor:
    """A few samples that the agent may see: of the test, else of validation, else of what it learns."""
    for name in dict.fromkeys(["test", "validation", *host.streams]):
        stream = host.streams.get(name)
        if stream is not None and stream.sees(agent) and len(stream.rows_for(agent)):
            rows, one = stream.rows_for(agent), host.agents[agent]
            if looks_up(host, one) and (unknown := lacking(host, one, host.reading.samples(agent, rows))) is not None:
                rows = rows[~unknown]
            if len(rows):
                return rows[:SAMPLES]
    return torch.arange(0)
