"""What a host's work cost: seconds by agent, memory and CPU seconds of its process, FLOPs of its models."""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, TypedDict

import torch

from kdmesh.hosts.looked_up import asks
from kdmesh.hosts.state import Seconds

if TYPE_CHECKING:
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.profile import Row
    from kdmesh.hosts.state import HostState


EVERY = 7  # steps of which one is timed, op by op


class Clock:
    """Shares the seconds of a fragment out among its ops, by how long each took in one step of `EVERY`.

    A reading of the clock for every op of every step would be felt in small steps. Of a GPU, which works after its ops
    were launched, it is their launches that are read; the fragment ends when the GPU has done it.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.spent = [0.0] * count
        self._gpu = device if device.type == "cuda" else None
        self._start, self._steps = time.perf_counter(), 0

    def due(self) -> bool:
        """Whether the ops of the step that begins are to be timed."""
        self._steps += 1
        return self._steps % EVERY == 1

    def stop(self) -> list[float]:
        """The seconds of each op."""
        if self._gpu is not None:
            torch.cuda.synchronize(self._gpu)
        share = (time.perf_counter() - self._start) / (sum(self.spent) or 1.0)
        return [seconds * share for seconds in self.spent]


class ProcessCosts(TypedDict):
    """What the process of a host has used since it began: ``cpu_s``, and at most at one time, in bytes.

    ``process``: its id; ``peak_bytes``: resident, None where the system does not say; ``gpu_peak_bytes``: of tensors,
    by device.
    """

    node: str
    process: int
    cpu_s: float
    peak_bytes: int | None
    gpu_peak_bytes: dict[str, int]


class HostCosts(TypedDict):
    """What a host's work cost.

    ``flops``: by agent, of one answer to one sample, or None and why they cannot be counted; ``seconds``: by purpose
    ("teaching", "training"), then by agent or consensus; ``profile``: of what is offered, nothing unless asked for.
    """

    flops: dict[str, tuple[int | None, str]]
    seconds: dict[str, dict[str, float]]
    process: ProcessCosts
    profile: list[Row]


def process(host: HostState) -> ProcessCosts:
    """What the process of a host has used since it began."""
    gpus = sorted({agent.device.index or 0 for agent in host.agents.values() if agent.device.type == "cuda"})
    return {
        "node": platform.node(),
        "process": os.getpid(),
        "cpu_s": time.process_time() - host.began,
        "peak_bytes": peak(),
        "gpu_peak_bytes": {str(gpu): torch.cuda.max_memory_allocated(gpu) for gpu in gpus},
    }


def peak() -> int | None:
    """The most memory that this process had resident at one time, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def costs_of(host: HostState) -> HostCosts:
    """Of every agent here its FLOPs, of every node its seconds over all stages, and what the process used."""
    total = Seconds()
    for one in host.seconds.values():
        for node, seconds in one.teaching.items():
            total.add("teaching", node, seconds)
        for node, seconds in one.training.items():
            total.add("training", node, seconds)
    used = process(host)  # before anything is forwarded to be counted
    return {
        "flops": {name: flops(host, agent) for name, agent in host.agents.items()},
        "seconds": asdict(total),
        "process": used,
        "profile": [] if host.profile is None else host.profile.rows(),
    }


@torch.no_grad()
def flops(host: HostState, agent: Agent) -> tuple[int | None, str]:
    """Floating point operations of one answer to one sample, or None and why they cannot be counted.

    As torch counts them: 2 for a multiplication and its addition, in matrix products, convolutions and attention;
    nothing for the rest. Of texts the sample is the first one.
    """
    if agent.weights.unread:
        return None, "its weights were not read: the store has all that it was asked"
    if asks(agent):
        return None, "it computes elsewhere, behind an endpoint"
    from torch.utils.flop_counter import FlopCounterMode

    x, was = host.loader.one(agent.name, agent.device), agent.module.training
    agent.weights.train(False)
    agent.buffers.note()
    try:
        with FlopCounterMode(display=False) as counter:
            agent.module(x)
        found = counter.get_total_flops()
    except Exception as error:
        return None, f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    finally:
        if agent.buffers.changed():
            agent.buffers.put_back()
        agent.weights.train(was)
    return (found, "") if found else (None, "torch counts none of its operations")
