"""A host's part of a checkpoint: everything of one stage that training changes. Safetensors and JSON, nothing pickled.

Batches, randomness and schedules' shapes are derived from seeds and step numbers, so they are not here; what a finished
or frozen source published is published again.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kdmesh.errors import FAULTS, RunFailed
from kdmesh.files import aside, opened, read, reason, remedy, write
from kdmesh.graph.reach import readers
from kdmesh.graph.sources import written_before
from kdmesh.hosts import written
from kdmesh.hosts.consensus import Moment, Table
from kdmesh.hosts.export import Part
from kdmesh.hosts.gates import mixes, of_mix, place
from kdmesh.hosts.packing import pack
from kdmesh.hosts.publications import Key, Publication
from kdmesh.hosts.publish import take_snapshot
from kdmesh.hosts.state import Seconds, Tally
from kdmesh.signals import Signal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from kdmesh.hosts.state import HostState
    from kdmesh.hosts.weights import Weights

PLAIN = ' .:,@[]{}"'  # what stays as it is in a part of a tensor's name; between the parts stands a slash


def save(host: HostState, stage: str, folder: str | None) -> Part:
    """Write a stage's state as it stands on this host; None: hand it over, to a driver that writes elsewhere."""
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {"weights": {}, "forwards": host.made.get(stage, {}), "best": {}}
    facts["seconds"] = asdict(host.seconds_of(stage))
    facts["gated"] = [[*key, asdict(host.gated[key])] for key, _ in _gates(host, stage) if key in host.gated]
    own = host.plan.stage(stage).agents
    facts["figures"] = {agent: host.figures[agent] for agent in own if agent in host.figures}
    facts["measured"] = {agent: host.measured[agent] for agent in own if agent in host.measured}
    if stage in host.answering:
        facts["ahead"] = host.answering[stage]()

    def keep(value: Any, *name: Any) -> None:
        tensor = value if torch.is_tensor(value) else torch.tensor(value)
        tensors["/".join(quote(str(part), PLAIN) for part in name)] = tensor.detach().cpu().clone().contiguous()

    plan = host.plan.stage(stage)
    streams = {stream for phase in plan.phases.values() for stream in phase.streams}
    streams |= {other for stream in streams for other in written_before(host.plan.spec, stream)}
    for name in plan.weights:
        if name in host.weights:
            facts["weights"][name] = _weights(host.weights[name], keep)
        if name in host.best:
            facts["best"][name] = host.best[name][0]
            for key, value in host.best[name][1].items():
                keep(value, "best", name, key)
    for one in _modules(host, stage):
        try:
            for key, value in one.module.state_dict().items():
                keep(value, one.kind, one.name, key)
        except FAULTS as error:
            host.registry.attribute_error(*one.offer, error, "to be kept in a checkpoint", one.where)
    facts["tables"] = list(_tables(host, stage, keep))
    facts["asked"] = [[*asked, *now] for *asked, now in _asked(host, stage)]
    for stream, writer in host.writers.items():
        for key, value in written.state(stream, writer).items() if stream in streams else ():
            keep(value, "writer", stream, key)
    for hidden, table in host.publications.tables():
        for about, publication in table.items():
            here = about.source in plan.agents or (about.kind == written.KIND and about.stream in streams)
            if here or (about.source in host.plan.consensus and _reads(host, stage, about.source)):
                for kind, name, value in publication.tensors():
                    keep(value, "store", hidden, *about, kind, name)
    for agent, snapshot in host.snapshots.items():
        if agent in plan.agents:
            for key, value in snapshot.weights.state().items():
                keep(value, "snapshot", agent, key)
    for memory, predictions in host.predictions.items():
        if _reads(host, stage, memory.partition(":")[0]):
            keep(predictions, "predictions", memory)
    names, text = part_names(host.name), json.dumps(facts, sort_keys=True)
    if folder is None:
        return dict(zip(names, (safetensors.torch.save(tensors), text.encode()), strict=True))
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with aside(root / names[0]) as draft:
            save_file(tensors, draft)
        write(root / names[1], text)
    except (OSError, SafetensorError) as error:
        raise unwritable(error, root.parent) from error
    return dict.fromkeys(names)


def part_names(host: str) -> tuple[str, str]:
    """The files of a host's part: tensors and facts."""
    return f"{host}.safetensors", f"{host}.json"


def unwritable(error: Exception, folder: Path) -> RunFailed:
    """What to say where a checkpoint's ``folder`` takes no more: a full disk, or rights that changed."""
    return RunFailed(
        f"a checkpoint could not be written: {reason(error)}",
        file=str(folder),
        instead=f"{remedy(error) or 'free disk space or give the right to write there'}, then: "
        f"kdmesh resume {folder.parents[2]}; "
        "the checkpoint before is whole",
    )


def load(host: HostState, stage: str, given: str | Part) -> None:
    """Put back what :func:`save` wrote to a folder, or handed over. The stage's optimisers must have been made."""
    first, second = part_names(host.name)
    if isinstance(given, str):
        with opened(Path(given) / first):  # refuses what is no file, as a named pipe, which would be waited for
            tensors = load_file(Path(given) / first)
        text = read(Path(given) / second)
    else:
        content, text = given[first], str(given[second], "utf-8")  # type: ignore[arg-type]
        tensors = safetensors.torch.load(content)  # type: ignore[arg-type]
    facts = json.loads(text)
    found: dict[str, dict[tuple[str, ...], Tensor]] = {}
    for name, value in tensors.items():
        kind, *rest = map(unquote, name.split("/"))
        found.setdefault(kind, {})[tuple(rest)] = value
    for name, known in facts["weights"].items():
        _restore(host.weights[name], known, found)
    for one in _modules(host, stage):
        state = {key[1]: value for key, value in found.get(one.kind, {}).items() if key[0] == str(one.name)}
        try:
            if one.module.state_dict():
                one.module.load_state_dict(state)
        except FAULTS as error:
            host.registry.attribute_error(*one.offer, error, "to be restored from a checkpoint", one.where)
    for number, (name, variant, mark, form) in enumerate(facts.get("tables", ())):
        said = {key[1]: value.to(host.device) for key, value in found.get("table", {}).items() if key[0] == str(number)}
        signal = Signal(said["value"], form, said.get("weights")) if said else None
        host.consensus[name].tables[variant] = Table(-1, mark, signal)  # no version: what it is of is looked at
    for name, reader, *now in facts.get("asked", ()):
        host.consensus[name].asked[reader] = Moment(*now)
    for stream in {name[0] for name in found.get("writer", {})}:
        state = {key[1]: value for key, value in found["writer"].items() if key[0] == stream}
        host.writers[stream].load_state_dict(state)  # type: ignore[attr-defined]  # it has one: see written.state
    for name, value in facts["best"].items():
        host.best[name] = (value, {key[1]: best for key, best in found["best"].items() if key[0] == name})
    host.made[stage] = dict(facts["forwards"])
    host.seconds[stage] = Seconds(**facts.get("seconds", {}))
    tallies = {(kind, about): tally for kind, about, tally in facts["gated"]}
    host.gated.update((key, Tally(**tallies.get(key, {}))) for key, _ in _gates(host, stage))
    own = host.plan.stage(stage).agents
    host.figures = {name: known for name, known in host.figures.items() if name not in own} | facts.get("figures", {})
    host.measured = {name: at for name, at in host.measured.items() if name not in own} | facts.get("measured", {})
    if "ahead" in facts:
        host.answered[stage] = facts["ahead"]
    device = host.device
    kept: dict[tuple[str, ...], dict[tuple[str, str], Tensor]] = {}
    for (*about, kind, name), value in found.get("store", {}).items():
        kept.setdefault(tuple(about), {})[kind, name] = value.to(device)
    for (hidden, *key), parts in kept.items():
        if Key(*key).kind == written.KIND:  # is read as it is: in memory of its own, aligned as what a writer gives is,
            parts = {name: value.clone() for name, value in parts.items()}  # or sums differ in their last bit
        host.publications.restore(hidden, Key(*key), Publication.of(parts))
    for agent in {name[0] for name in found.get("snapshot", {})}:
        state = {key[1]: value for key, value in found["snapshot"].items() if key[0] == agent}
        take_snapshot(host, agent, {key: pack((value, {})) for key, value in state.items()})
    host.predictions.update((memory, value.to(device)) for (memory,), value in found.get("predictions", {}).items())


def _weights(weights: Weights, keep: Any) -> dict[str, Any]:
    """A set of weights: its state, and how far its training is."""
    for key, value in weights.state().items():
        keep(value, "weights", weights.name, key)
    facts, tensors = weights.progress()
    for (kind, *rest), value in tensors.items():
        keep(value, kind, weights.name, *rest)
    return facts


def _restore(weights: Weights, facts: dict[str, Any], found: dict[str, dict[tuple[str, ...], Tensor]]) -> None:
    own = {
        (kind, *key[1:]): value for kind, part in found.items() for key, value in part.items() if key[0] == weights.name
    }
    weights.load({key[1]: value for key, value in own.items() if key[0] == "weights"})
    weights.resume(facts, {key: value for key, value in own.items() if key[0] in ("optimizer", "grad")})


class _Owned(NamedTuple):
    """What has a state of a stage beside its weights: by kind and name in a checkpoint, and whose offer it is of."""

    kind: str
    name: Any
    module: nn.Module
    offer: tuple[str, str]
    where: str


def _modules(host: HostState, stage: str) -> Iterator[_Owned]:
    """Objectives, gates and rules that belong to a stage."""
    agents = host.plan.stage(stage).agents
    for edge in host.plan.edges:
        if edge.id in host.objectives and edge.target in agents and edge.objective is not None:
            objective = host.objectives[edge.id]
            yield _Owned("objective", edge.id, objective, ("objectives", edge.objective.name), edge.where)
    for (kind, about), gate in _gates(host, stage):
        flow = next((one for one in host.plan.edges if (kind, about) == ("flow", one.id)), None)
        mixed = {name: ref for name, ref, _ in mixes(host)} if kind == "mix" else {}
        ref = mixed[str(about)] if mixed else flow.gate if flow else host.plan.spec.agents[str(about)].gate
        assert ref is not None
        where = of_mix(str(about)) if mixed else place(str(about), flow)
        yield _Owned(f"gate of {kind}", about, gate, ("gates", ref.name), where)
    for name, rule in host.pools.items():
        if not set(agents).isdisjoint(host.plan.merging.readers(name)):
            offer = "consensus", host.plan.merging.pools[name].rule.name
            yield _Owned("merging", name, rule, offer, f"consensus.{name}")
    for name, consensus in host.consensus.items():
        if _reads(host, stage, name) and name not in host.weights:
            yield _Owned(
                "consensus", name, consensus.rule, ("consensus", consensus.node.rule.name), f"consensus.{name}"
            )


def _tables(host: HostState, stage: str, keep: Any) -> Iterator[list[str | None]]:
    """What rules have said of whole streams, and would not say again: they keep count, or go by the time."""
    number, agents = 0, (None, *host.plan.stage(stage).agents)
    for name, consensus in host.consensus.items():
        for variant, table in consensus.tables.items() if consensus.keeps and _reads(host, stage, name) else ():
            if variant not in agents:
                continue
            if table.signal is not None:
                keep(table.signal.value, "table", number, "value")
                if table.signal.weights is not None:
                    keep(table.signal.weights, "table", number, "weights")
            yield [name, variant, table.mark, table.signal.form if table.signal is not None else ""]
            number += 1


def _asked(host: HostState, stage: str) -> Iterator[tuple[str, str | None, Moment]]:
    """When rules that go by the time were last asked, by whom."""
    for name, consensus in host.consensus.items():
        for reader, now in consensus.asked.items() if _reads(host, stage, name) else ():
            if reader is None or reader in host.plan.stage(stage).agents:
                yield name, reader, now


def _gates(host: HostState, stage: str) -> Iterator[tuple[tuple[str, int | str], nn.Module]]:
    """The gates of a stage: of its agents' updates, of flows into them, and of the streams that they write."""
    writers = {name: agent for name, _, agent in mixes(host)}
    agents, flows = host.plan.stage(stage).agents, {edge.id: edge for edge in host.plan.edges if edge.gate is not None}
    for (kind, about), gate in host.gates.items():
        of = flows[int(about)].target if kind == "flow" else writers[str(about)] if kind == "mix" else about
        if of in agents:
            yield (kind, about), gate


def _reads(host: HostState, stage: str, consensus: str) -> bool:
    """Whether a stage's agents read a consensus, also through another one."""
    return not set(host.plan.stage(stage).agents).isdisjoint(readers(consensus, host.plan.consensus))
