"""What sources publish and readers keep: passes over a stream, recorded values, and old weights."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from kdmesh.errors import FAULTS
from kdmesh.hosts import build, guard, kept, measure, oddities, rules, stored
from kdmesh.hosts.forms import form_of, former
from kdmesh.hosts.packing import Packed, Published, pack, unpack
from kdmesh.hosts.publications import Key
from kdmesh.hosts.seen import seen
from kdmesh.signals.lazy import dense
from kdmesh.store.forms import EXACT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.hosts.agent import Agent
    from kdmesh.hosts.publications import Publication
    from kdmesh.hosts.state import HostState


def publish(
    host: HostState,
    agent: str,
    stream: str,
    outputs: tuple[str, ...],
    measuring: bool = False,
    stage: str = "",
    given: Sequence[Published] = (),
) -> Published:
    """A full evaluation pass of an agent over a stream, in fixed-size padded batches: what readers want of it.

    ``measuring`` is not teaching: the pass is on the samples as they are. ``stage``: to whose count it goes. For rules
    that ask, the agent's errors on validation go along. ``given``: what an agent with an input sees on this stream; by
    default what was last published of it.
    """
    one = host.agents[agent]
    shard = host.loader.shard(stream, agent, one.device, told=not measuring)
    host.threads(one.weights.settings.threads)
    before, start = one.forwards, time.perf_counter()
    layers = {output: one.makes[output].layer if _whole(one, output) else output for output in outputs}
    names = tuple(dict.fromkeys(name for name in layers.values() if name))
    x = seen(host, one, stream, given)
    try:
        found = None
        if not stage and (not measuring or stored.still(host, one)):
            form = EXACT if measuring else form_of(host, agent)
            size, logits = host.forward_size(agent), "" in layers.values()
            found = stored.stored(host, one, shard, names, size, view=not measuring, form=form, logits=logits)
        held = measuring or not host.config.near or any(_whole(one, output) for output in outputs)
        known = None if found is None else found.published(None if held else stored.TABLES)
        if found is None:
            if x is None:
                x = shard.x if measuring else one.see(shard.x, shard.ids, 0)
            known = one.inference(x, host.forward_size(agent), names)
            known = known if measuring else former(host, agent)(known)
    except FAULTS as error:
        build.attribute_error(host, agent, error, f"the stream {stream!r}")
    host.passes[agent, stream] = one.forwards - before
    if stage:
        host.count(stage, agent, one.forwards - before)
    if not measuring:
        if one.device.type == "cuda":
            torch.cuda.synchronize(one.device)
        host.seconds_of(stage).add("teaching", agent, time.perf_counter() - start)
    errors = measure.squared_errors(host, one) if host.plan.judged(agent) else None
    told: Published = {}
    for output, name in layers.items():
        key = Key(agent, stream, output)
        more = {"starts": one.starts(shard.x, output), "errors": errors}
        if known is None:
            assert found is not None
            told[key] = kept.refer(*found.refer(name), more)
            continue
        value = known[1][name] if name else known[0]
        if (whole := _whole(one, output)) is not None:
            statistic, present = whole(dense(value), shard.y)
            told[key] = pack((statistic, {"present": present}))
        else:
            told[key] = pack((value, more))
    return told


def _whole(one: Agent, output: str) -> Any:
    """What makes one of an agent's outputs of all values of a stream; None where it has a row for each sample."""
    return one.makes[output].whole if output in one.makes else None


def publish_consensus(host: HostState, consensus: str, readers: tuple[str, ...], when: str = "") -> Published:
    """What a consensus that is formed here says of its whole stream, by what its sources have published, for readers
    elsewhere: one version for each of ``readers``, "" for all that are sent the same. Nothing before any has.

    ``when``: which publication this is, for one that releases answers.
    """
    node = host.plan.consensus[consensus]
    host.consensus[consensus].when = when
    stream = host.streams[node.stream].base or node.stream
    shard = None
    if not node.unaligned:
        shard = host.loader.shard(stream, measure.owner(host, node.members[0].source, stream), host.device, told=True)
    told: Published = {}
    for reader in readers:
        signal = rules.stored(host, consensus, reader, shard)
        if signal is not None:
            present = None if signal.weights is None else signal.weights != 0
            told[Key(consensus, stream, reader)] = pack((signal.value, {"present": present}))
    return told


def commit(host: HostState, agent: str, stream: str, output: str) -> Published:
    """Make an agent's recorded values visible, and return them for readers elsewhere."""
    key = Key(agent, stream, output, "recorded")
    publication = host.publications.commit(key)
    return {} if publication is None else {key: _packed(publication)}


def receive(host: HostState, *published: Published) -> list[guard.Oddity]:
    """Keep publications of this and other hosts, one after the other; returns the oddities found in them."""
    odd: dict[guard.Oddity, None] = {}
    for key, packed in (item for part in published for item in part.items()):
        if kept.is_kept(packed):
            odd.update(dict.fromkeys(_looked_at(host, key, kept.fetch(host.shelf, packed))))
            continue
        values, more = next(iter(unpack({0: packed}, host.device).values()))
        host.publications.put(key, values, more.get("present"), more.get("starts"), more.get("errors"))
        if guard.is_dead(values):
            odd[key.source, key.stream, guard.DEAD] = None
        if not key.output and key.source in host.plan.spec.agents and oddities.softened(host, key.source, values):
            odd[key.source, "", guard.SOFTENED] = None
    return list(odd)


def _looked_at(host: HostState, key: Key, publication: kept.KeptPublication) -> list[guard.Oddity]:
    """Keep a publication that stays in the store, and look at it some samples at a time; the oddities in it."""
    host.publications.restore("visible", key, publication)
    dead, soft = False, not key.output and key.source not in host.softened
    for values in publication.chunks():
        dead = dead or guard.is_dead(values)
        soft = soft and guard.is_softened(values)
    if not key.output:
        host.softened.setdefault(key.source, soft)
    softened = not key.output and oddities.softened(host, key.source, None)
    return [(key.source, key.stream, guard.DEAD)] * dead + [(key.source, "", guard.SOFTENED)] * softened


def recall(host: HostState, agent: str, stream: str, outputs: tuple[str, ...]) -> Published:
    """What an agent published and this host reads, as it was published."""
    found = {key: host.publications.get(key) for key in (Key(agent, stream, output) for output in outputs)}
    return {key: _packed(one) for key, one in found.items() if one is not None}


def export_state(host: HostState, agent: str) -> dict[str, Packed]:
    """An agent's weights as they are now."""
    return {name: pack((value, {})) for name, value in host.weights[host.plan.owner[agent]].state().items()}


def take_snapshot(host: HostState, agent: str, state: dict[str, Packed]) -> None:
    """Keep an agent's old weights, to be forwarded live."""
    values = {name: value[0] for name, value in unpack(state, torch.device("cpu")).items()}
    if agent not in host.snapshots:
        host.snapshots[agent] = build.agent(host, agent, build.old_weights(host, host.plan.owner[agent]))
    host.snapshots[agent].weights.load(values)


def _packed(publication: Publication) -> Packed:
    more = {"present": publication.present, "starts": publication.starts, "errors": publication.errors}
    return pack((publication.values, more))
