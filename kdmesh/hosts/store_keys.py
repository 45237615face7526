"""What an agent's answers are found by in the store: all that can make them other values is in the key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.graph.views import of_samples
from kdmesh.hosts.identity import Unknown, identity, made_of
from kdmesh.hosts.local_weights import sha256
from kdmesh.hosts.unbuilt_weights import MODULE, WEIGHTS
from kdmesh.store import EntryKey
from kdmesh.store.forms import EXACT
from kdmesh.streams.seeds import mix
from kdmesh.streams.unread import Numbers

if TYPE_CHECKING:
    from torch import nn

    from kdmesh.graph.edges import Edge
    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.loader import ShardView
    from kdmesh.hosts.state import HostState
    from kdmesh.offers import Offer

RECIPE = 1
"""Rises where this version makes other values of the same weights and samples than the one before."""


def entry_key(
    host: HostState, one: Agent, shard: ShardView, name: str, rows: int, *, view: bool, form: str = EXACT
) -> EntryKey:
    """The key of one of an agent's outputs ("": its logits) on samples like a stream's.

    ``rows``: of each forward; ``view``: whether it sees them in its view; ``form``: that values are kept in.
    :class:`Unknown` for what has no key.
    """
    producer = {
        **made_by(host, one),
        "exit": one.exit,
        "labels": host.plan.spec.agents[one.name].labels,
        "view": _views(host, one) if view else [],
        "input": _input(host, one, shard),
        "precision": one.weights.settings.precision,
        "forward_size": rows,
    }
    kept = {} if form == EXACT else {"form": form}
    return EntryKey(producer, _signal(host, one, name) | kept)


def made_by(host: HostState, one: Agent) -> dict[str, Any]:
    """Of a key, what an agent computes with: its weights and module. :class:`Unknown` for what has no identity."""
    owner = host.plan.owner[one.name]
    shelf, frozen = host.shelf, host.plan.spec.agents[owner].update == "frozen"
    assert shelf is not None
    if not frozen or owner not in shelf.weights:
        shelf.modules[owner], shelf.weights[owner] = one.weights.identity(), one.weights.sha256()
        if owner in shelf.signs and not one.weights.unread:
            shelf.store.remember(shelf.signs[owner], {WEIGHTS: shelf.weights[owner], MODULE: shelf.modules[owner]})
    made = {"class": type(one.module).__qualname__, "sha256": shelf.modules[owner]}
    return {"recipe": RECIPE, "weights": shelf.weights[owner], "module": made}


def alone(module: nn.Module, samples: dict[str, Any], rows: int) -> EntryKey:
    """The key of a module's answers outside a mesh: that of an agent with these weights, all else by default.

    ``samples``: their dtype and shape; ``rows``: of each forward. :class:`Unknown` for what has no key.
    """
    producer = {
        "recipe": RECIPE,
        "module": {"class": type(module).__qualname__, "sha256": identity(module)},
        "weights": sha256(module),
        "exit": None,
        "labels": None,
        "view": [],
        "input": samples,
        "precision": "fp32",
        "forward_size": rows,
    }
    return EntryKey(producer, {"output": ""})


def seeds_of(host: HostState, one: Agent) -> int:
    """What an agent's view draws by, beside sample and number: the seeds of its augmentations."""
    view = host.plan.spec.agents[one.name].view
    count = of_samples(view, host.plan.mixed.get(one.name))
    return mix("views", *(mix(host.seed, "view", view.of or one.name, number) for number in range(count)))


def _views(host: HostState, one: Agent) -> list[dict[str, Any]]:
    view = host.plan.spec.agents[one.name].view
    refs = view.augment[: of_samples(view, host.plan.mixed.get(one.name))]
    return [_offered(host, "views", ref.name, ref.config) for ref in refs]


def _offered(host: HostState, kind: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """An offer that takes part: its name, settings, and code."""
    offer: Offer = host.registry.find(kind, name)
    settings = offer.config.model_validate(config).model_dump(mode="json")
    return {"name": name, "settings": settings, "code": made_of(offer.load())}


def _input(host: HostState, one: Agent, shard: ShardView) -> dict[str, Any]:
    """Of what kind the samples are; their values are in the digest of each."""
    if isinstance(shard.x, Numbers):
        return {"dtype": str(shard.x.dtype), "shape": list(shard.x.shape[1:])}
    encoder = host.reading.encoder(one.name)
    return {
        "tokenizer": encoder.key,
        "numbers": encoder.numbers,  # for who has a tokenizer and not all settings of `tokenizer`
        "task": host.plan.task_of(one.name).name,
        "pad": shard.x.pad,
        "tokens": encoder.vocabulary,
    }


def _signal(host: HostState, one: Agent, name: str) -> dict[str, Any]:
    """What is made of a forward."""
    if name not in one.makes:
        return {"output": one.layer(name) if name else ""}
    make, edge = one.makes[name], _edge(host, one, name)
    assert edge.derived is not None
    offer = host.registry.find("signals", edge.derived.name)
    if make.whole is not None:
        raise Unknown(f"the signal {offer.name} is of a whole stream, and has no row for a sample")
    if "generator" in offer.needs:
        raise Unknown(f"the signal {offer.name} draws")
    made = _offered(host, "signals", edge.derived.name, edge.derived.config)
    beside = {tap: one.layer(tap) for tap in make.beside}
    return {"output": one.layer(name), "made": made, "beside": beside}


def _edge(host: HostState, one: Agent, name: str) -> Edge:
    """A flow on which a signal is made."""
    return next(
        edge
        for edge in host.plan.edges
        if edge.derived is not None
        and edge.output == name
        and (edge.source == one.name or (edge.mirrored and edge.target == one.name))
    )
