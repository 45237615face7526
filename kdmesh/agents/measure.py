"""Measure agents and consensus nodes on one host: numbers go to the driver, never tensors."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.agents import metrics
from kdmesh.agents.crossing import unpack
from kdmesh.signals import Signal
from kdmesh.store import Key

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdmesh.agents.agent import Agent
    from kdmesh.agents.host import Host
    from kdmesh.graph.edges import Edge

CHUNK = 256


def judge(
    host: Host, name: str, stream: str, among: list[str], published: tuple[dict[Key, Any], ...]
) -> dict[str, Any]:
    """Measure the full consensus (include_self does not matter here) on a stream.

    Returns ``{"quality": {...} | {}, "agreement", "churn", "oracle"}``. A rule that needs labels is given the true
    ones, and says so by ``oracle``: its figure is a bound, not a result.
    """
    consensus = host.consensus[name]
    device = next(iter(host.agents.values())).device
    sent: dict[tuple[str, str], Tensor] = {}
    for part in published:
        sent.update({(key.source, key.what): value[0] for key, value in unpack(part, device).items()})
    truth = host.feed.lane(stream, _owner(host, stream), device).truth
    found: dict[str, Any] = {"quality": {}, "oracle": consensus.node.needs_labels}
    signal = _combined(host, name, sent, truth)
    if signal is not None and truth is not None:
        found["quality"] = metrics.quality(signal.value, truth, probs=signal.form == "probs")
    spoken = {edge.source: sent.get((edge.source, edge.what)) for edge in consensus.node.members}
    voices = [value.argmax(1) for source in among if (value := spoken.get(source)) is not None]
    if voices:
        guesses = torch.stack(voices)
        memory = f"{name}:{stream}"
        found["agreement"] = metrics.agreement(guesses)
        found["churn"] = metrics.churn(guesses, host.guesses.get(memory))
        host.guesses[memory] = guesses
    return found


def _combined(host: Host, name: str, sent: dict[tuple[str, str], Tensor], truth: Tensor | None) -> Signal | None:
    consensus = host.consensus[name]
    if (
        consensus.node.space == "gradient"
        or consensus.node.per_target
        or (consensus.node.needs_labels and truth is None)
    ):
        return None  # no single signal: it differs by target, or cannot be formed here

    def fetch(edge: Edge) -> Signal | None:
        if edge.source in host.consensus:
            return _combined(host, edge.source, sent, truth)
        value = sent.get((edge.source, edge.what))
        return None if value is None else Signal(value, edge.form)

    training = consensus.rule.training
    consensus.rule.eval()
    try:
        with torch.no_grad():
            return consensus.combine(None, fetch, truth)
    except Exception as error:
        host.blame_rule(name, error, "for its measurement")
    finally:
        consensus.rule.train(training)


def _owner(host: Host, stream: str) -> str:
    shards = host.streams[stream].shards
    return next(iter(host.agents)) if shards is None else next(name for name in shards if name in host.agents)


def describe(host: Host, agent: Agent) -> dict[str, Any]:
    """Size, identity and speed of an agent as it stands."""
    return {
        "parameters": sum(parameter.numel() for parameter in agent.module.parameters()),
        "weights_sha256": sha256(agent.module),
        "latency_ms": latency(host, agent),
        "forwards": agent.forwards,
        "updates": agent.weights.updates,
    }


def sha256(module: nn.Module) -> str:
    """Hash of names, types, shapes and bytes of a module's state, in order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def latency(host: Host, agent: Agent, runs: int = 15) -> float:
    """Median milliseconds to answer one sample."""
    x = host.table.x[:1].to(agent.device)
    host.threads(agent.weights.settings.threads)
    was = agent.module.training
    agent.module.eval()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        agent.module(x)
        if agent.device.type == "cuda":
            torch.cuda.synchronize(agent.device)
        times.append(time.perf_counter() - start)
    agent.module.train(was)
    return round(sorted(times)[len(times) // 2] * 1000, 4)
