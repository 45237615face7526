"""Check what structure cannot tell: models on the `meta` device for taps and shapes, settings, and the data."""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from kdmesh.checks import (
    bases,
    drawn,
    labels,
    licences,
    lineage,
    lonely,
    looked_up,
    merging,
    private,
    prompts,
    pruned,
    released,
    served,
    shared_base,
    texts,
    unanswered,
    untrained,
    unused,
)
from kdmesh.checks.budget import planned_updates, whole_epochs
from kdmesh.checks.checked import Checked
from kdmesh.engine import notes, trial
from kdmesh.engine.inputs import given
from kdmesh.engine.looked_up import settled
from kdmesh.engine.spared import kept_at
from kdmesh.errors import FAULTS, MeshError, line_of, nearest, text_of
from kdmesh.graph import inputs
from kdmesh.graph.disclosed import told as disclosed
from kdmesh.graph.edges import LABELS
from kdmesh.graph.gates import OF_VALIDATION, gates
from kdmesh.graph.heard import origin
from kdmesh.graph.idle import idle, untaught
from kdmesh.graph.reach import consensus_from, readers, sources
from kdmesh.graph.unkept import unkept
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.hosts import guard, making, noised, parameters
from kdmesh.hosts.compression.pruning import Pruned, pruned_of
from kdmesh.hosts.modes import held
from kdmesh.hosts.modules import build, output
from kdmesh.hosts.preprocessing import Preprocessor
from kdmesh.hosts.rehearsal import kinds_of, rehearse
from kdmesh.hosts.source import Source
from kdmesh.hosts.standing import Given
from kdmesh.hosts.taps import Taps
from kdmesh.placement import sizes
from kdmesh.plugins import registry
from kdmesh.report import layout
from kdmesh.report.licences import judged
from kdmesh.signals.lazy import FactoredLogits, Lazy, dense, leaves
from kdmesh.spec.code import told
from kdmesh.spec.data import licence_of
from kdmesh.store import default_root
from kdmesh.streams.private import learnable, told_part
from kdmesh.streams.remarks import leaks, remarks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kdmesh.graph.edges import Edge
    from kdmesh.graph.plan import Plan
    from kdmesh.hosts.rehearsal import Kind
    from kdmesh.hosts.written import Writer
    from kdmesh.offers import SignalOffer
    from kdmesh.spec.train import TrainSpec
    from kdmesh.streams.stream import Stream
    from kdmesh.streams.table import Table
    from kdmesh.streams.tokens import Tokens

    Seen = tuple[nn.Module, Any, tuple[str, ...]]

NUMBERS = 2**24  # values that are made up of an output that has none
MOST_VALUES = 1000  # of a column by which a metric is told
SHOWN = 50  # columns that are written out
EXIT = ""  # the tap of the layer that gives an agent's outputs


def check(plan: Plan) -> list[str]:
    """Check a plan and say what was found, a line each."""
    plan = replace(plan, spec=settled(plan.spec, None))
    found = examine(plan, anew=True)
    table = found.table
    kind = "texts" if found.reading.texts else f"samples of shape {tuple(table.shape)}"
    classes = f", {table.classes} classes" if table.classes else ""
    if table.y is not None and table.y.dim() == 2:
        count = table.y.shape[1]
        classes = f", lists of up to {count} candidates" if table.lists else f", {count} {table.kind}"
    lines = [f"data: {len(table)} {kind}{classes}; licence: {licence_of(plan.spec.data, table.licence)}"]
    if table.labels:
        more = ", ..." if len(table.labels) > SHOWN else ""
        lines.append(f"{table.kind or 'classes'}: {', '.join(table.labels[:SHOWN])}{more}")
    if table.features:
        lines.append(f"features: {', '.join(table.features[:SHOWN])}{', ...' if len(table.features) > SHOWN else ''}")
    for name, stream in found.streams.items():
        parts = "" if stream.shards is None else ", shards of " + "/".join(str(len(s)) for s in stream.shards.values())
        lines.append(f"stream {name}: {len(stream.rows)} samples{parts}{'' if stream.labelled else ', unlabelled'}")
    lines += _prepared(table)
    lines += [
        f"agent {name}: {count:,} parameters{pruned.told(found.pruned.get(plan.owner[name]))}"
        for name, count in found.parameters.items()
    ]
    lines += [*texts.told(plan, found), *texts.crossings(plan, found)]
    lines += [f"tap {agent}.{tap}: {tuple(shape)}" for (agent, tap), shape in found.shapes.items() if tap]
    lines += judged(found.licences.asked, found.licences.where, found.licences.own, layout.terminal_width())
    lines += [f"note: {text}" for text in found.notes]
    if default_root() is not None:
        lines += [f"note: {one.told(name)}" for name, one in unkept(plan, registry()).items()]
    return [*lines, "everything fits"]


def _prepared(table: Table) -> list[str]:
    """What `prepare` gives, by the first sample of train before and after."""
    lines = []
    for name, made in {"": table.prepared, **{name: made for name, (_, made) in table.own.items()}}.items():
        if made is not None and any(group.asked for group in made.groups):
            whose = f" for {name}" if name else ""
            count = f"{len(made.columns)} columns give {len(made.outputs)}" if made.outputs else "pixels, by channel"
            before, after = ([*part[:SHOWN], *(["..."] if len(part) > SHOWN else [])] for part in made.example)
            lines += [f"prepared{whose}: {count}, fitted on {made.fitted:,} samples of train"]
            lines += [f"  the first of these{whose}: {', '.join(before)}", f"  becomes: {', '.join(after)}"]
    return lines


def examine(
    plan: Plan,
    modules: dict[str, nn.Module] | None = None,
    table: Table | None = None,
    here: bool = True,
    writers: dict[str, Writer] | None = None,
    store: str | None = None,
    anew: bool = False,
    began: Path | None = None,
    sizes: dict[str, int] | None = None,
) -> Checked:
    """Load the data, build every model without memory, and refuse what cannot run.

    ``here``: the hosts are on this machine, whose memory must do; a cluster that is joined knows its own.
    ``writers``: by stream that an agent writes, what writes it. ``store``: the run's, which has what was
    found at endpoints before; ``anew``: they are looked at all the same; ``began``: the folder of a run that goes on.
    ``sizes``: by party whose samples are not here, how many it has.
    """
    with plan.naming():
        return _examined(plan, modules or {}, Source(table, sizes=sizes or {}), here, writers, store, anew, began)


def _examined(
    plan: Plan,
    modules: dict[str, nn.Module],
    source: Source,
    here: bool,
    writers: dict[str, Writer] | None,
    store: str | None,
    anew: bool,
    began: Path | None,
) -> Checked:
    """What :func:`examine` does."""
    refuse_unrun(plan, registry(), writers)
    table, streams = source.load(plan)
    found = Checked(table, streams, Preprocessor(plan, table, registry(), None, learnable(streams)))
    if writers and found.reading.texts:
        what = "streams of texts that an agent writes are not run by this version"
        raise MeshError(what, where=f"streams.{next(iter(writers))}", instead="a stream `of` a split")
    if found.reading.texts and plan.inputs:
        edge = next(iter(plan.inputs.values()))
        what = (
            f"{edge.target} would see what {edge.source} says of texts in their place, which this version does not run"
        )
        instead = f"{{from: {edge.source}, to: {edge.target}, objective: kl, stream: transfer}}, or data of numbers"
        raise MeshError(what, where=edge.where, instead=instead)
    labels.refuse(plan, found.table)
    unused.stratified(plan, found)
    labels.measured(plan, found)
    labels.judged(plan, found)
    _told_by(plan, found.table)
    texts.read(plan, found)
    unanswered.refuse(plan, found)
    texts.learned(plan, found)
    prompts.answered(plan, found)
    prompts.measured(plan, found)
    _streams(plan, found)
    private.prove(plan, found)
    _models(plan, found, modules)
    for name in plan.private_agents:
        noised.prove(build(plan, name, found.reading, registry(), modules), found.reading, found.streams, name)
    prompts.drawn(plan, found)
    looked_up.covered(plan, found)
    if here:
        sizes.refuse(plan, found)
    merging.compare(plan, found)
    texts.compare(plan, found)
    updates: dict[str, int] = {}
    for stage in plan.stages:
        updates |= planned_updates(plan, found, stage)
    for name in dict.fromkeys(plan.owner.values()):
        _settings(plan, name, found, updates.get(name, 0), modules)
    released.prove(plan, found)
    _measured(plan, found)
    trial.rehearse(plan, found)
    lineage.trace(plan, found, modules)
    found.given = given(modules)
    found.licences = licences.examine(plan, found.table.licence, modules)
    found.licences.shared = bases.shared(plan, found.given)
    found.notes += [*found.licences.notes, *shared_base.notes(found.licences.shared)]
    for text in found.licences.marks:
        found.mark(text)
    served.looked_at(plan, found, kept_at(store), anew, began)  # once nothing else is wrong: it costs
    for text in notes.taught_by_validation(plan, found):
        found.mark(text)
    found.notes += [*notes.unused_epochs(plan), *notes.unused_task_settings(plan), *notes.unread(plan)]
    found.notes += [*idle(plan, registry()), *unused.notes(plan, found)]
    for text in (*untaught(plan), *disclosed(plan)):
        found.mark(text)
    public = told_part(found.table, found.streams)
    found.notes += remarks(public, found.streams)  # a least value is one of somebody's
    for text in leaks(public if plan.withholding else found.table, found.streams):  # and a count is made of all
        found.mark(text)
    found.notes += [*told(plan.spec), *texts.notes(plan, found)]
    found.writers = {name: f"{type(one).__module__}:{type(one).__qualname__}" for name, one in (writers or {}).items()}
    return found


def _streams(plan: Plan, found: Checked) -> None:
    """Every stream that is used exists; where one is smaller than a batch, that is noted."""
    for edge in plan.edges:
        if edge.stream not in found.streams:
            raise MeshError(
                f"there is no {edge.stream!r} stream in this data",
                where=f"data.{edge.stream}",
                instead=f"{edge.stream}: 0.2",
            )
        known = plan.spec.agents[edge.target].labels if edge.source == LABELS else None
        if known is not None and found.table.y is not None:
            truth = found.table.y[found.streams[edge.stream].rows_for(edge.target)]
            if not torch.isin(truth, torch.tensor(known)).any():
                raise MeshError(
                    f"{edge.target} would learn nothing from labels: none of its {len(truth)} samples of "
                    f"{edge.stream!r} is of a class that it knows, {known}",
                    where=f"agents.{edge.target}.labels",
                    instead="classes that its samples have, or another stream for this flow",
                )
        if (
            edge.source in plan.spec.agents
            and edge.source != edge.target
            and _differ(plan, found.streams[edge.stream], edge)
            and not edge.unaligned
        ):
            raise MeshError(
                f"agents see different samples of {edge.stream!r}: {edge} would compare outputs for different samples",
                where=f"{edge.where}.stream",
                instead="a stream that is not divided into shards",
            )
    small: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for stage in plan.stages:
        for phase in stage.phases.values():
            for edge in phase.edges:
                size, batch = found.size(edge.stream, edge.target), plan.train(edge.target).batch_size
                own = plan.spec.streams.get(edge.stream)
                if batch > size and (own is None or own.generated_by is None):
                    small[edge.stream, size, batch].append(edge.target)
    for (stream, size, batch), agents in small.items():
        names = ", ".join(dict.fromkeys(agents))
        found.notes.append(f"{names}: batches of {stream!r} hold all {size} samples, where batch_size is {batch}")


def _differ(plan: Plan, stream: Stream, edge: Edge) -> bool:
    """Whether an edge's ends see different samples of its stream, also through a consensus."""
    if stream.shards is None:
        return False
    nodes = plan.consensus
    ends = [edge.source, *readers(edge.target, nodes)]
    ends += [one for name in consensus_from(edge.target, nodes) for inner in nodes[name].members
             for one in sources(inner, nodes)]  # fmt: skip
    return len({stream.owner(end) for end in ends}) > 1


def _smaller(plan: Plan, owner: str) -> str:
    """What is taken out of weights and how they round; pruning leaves alone what starts at random."""
    spec, begins = plan.spec.agents[owner], plan.spec.agents[origin(plan, owner)]
    drawn = f"{begins.weights is None}{begins.new_heads}" if spec.prune else ""
    return f"{spec.prune!r}{spec.quantize}{drawn}"


def _models(plan: Plan, found: Checked, modules: dict[str, nn.Module]) -> None:
    """Build each model on `meta`, forward two samples, and note sizes and taps."""
    taps, makers = _needed_taps(plan), {edge.source for edge in plan.edges if edge.derived is not None}
    makers |= {edge.target for edge in plan.edges if edge.mirrored} | prompts.writers(plan)
    sizes: dict[str, tuple[int, torch.Size, int, frozenset[Kind], tuple[int, int]]] = {}
    states: dict[str, dict[str, str]] = {}
    drawn: dict[str, tuple[list[str] | None, int]] = {}
    gives: dict[str, Given] = {}
    smaller: dict[str, Pruned | None] = {}
    complaints: dict[str, dict[int, str]] = {}
    for agent in _ordered(plan):
        spec, owner = plan.spec.agents[agent], plan.owner[agent]
        if agent in plan.inputs:
            found.reading.inputs[agent] = _seen(plan, found, agent)
            if owner in plan.inputs:
                found.reading.inputs.setdefault(owner, found.reading.inputs[agent])  # by which its model is built
        written = dict(taps.get(agent, {}))
        layers = {name: spec.taps.get(name, name) for name in written}
        if spec.exit is not None:
            layers[EXIT], written[EXIT] = spec.exit, f"agents.{agent}.exit"
        trains = lonely.trains(plan, agent)
        key = f"{owner if owner in modules else plan.spec.agents[owner].model!r}{layers}{spec.labels}{trains}"
        key += _smaller(plan, owner)
        key += f"{found.reading.inputs.get(agent, '')}{plan.task_of(agent).name}"  # who only writes has another head
        if key not in sizes or layers or spec.ema is not None or agent in makers:
            module, parts, x = _light(plan, owner, agent, found, modules)
            prompts.writes(plan, agent, module)
            with _tapped(module, layers, agent, written) as values, torch.no_grad(), Softmaxes() as ends:
                logits = _forward(module, x, agent, _whose(plan, agent, modules))
            for name in layers:
                if name not in values:
                    raise MeshError(f"layer {layers[name]!r} was not used in the forward", where=written[name])
                if name != EXIT:
                    value, per = values[name], _rows_of(module, layers[name])
                    found.shapes[agent, name] = value.shape[1:]
                    found.layers[agent, name] = Given(value.shape[1:], value.dtype, per)
                    if per != "samples":
                        found.per_token.add((agent, name))
            logits = values.get(EXIT, logits)
            if not logits.dtype.is_floating_point:
                raise MeshError(
                    f"{_whose(plan, agent, modules)} gives outputs of {logits.dtype}",
                    where=f"agents.{agent}.model",
                    instead="a model that gives floating point",
                )
            if ends.gave(logits):
                found.mark(notes.ends_in_softmax(agent))
                found.softmaxes.add(agent)
            width = logits.hidden.shape[1] if isinstance(logits, FactoredLogits) else 0
            count = sum(parameter.numel() for parameter in module.parameters())
            smaller[key] = pruned_of(module)
            unused.averaged(plan, found, agent, module)
            sizes[key] = count, logits.shape, width, kinds_of(module.parameters()), _held(module)
            gives[key] = Given(logits.shape[1:], logits.dtype, _rows_of(module, layers.get(EXIT, "")))
            states[key] = _entries(module, agent, _whose(plan, agent, modules))
            drawn[key] = untrained.drawn_of(module)
            _made(plan, agent, values, logits, (module, x, tuple(spec.taps)), found)
            complaints[key] = _complaints(plan, found, agent, module, parts, x.device) if trains else {}
        found.outputs[agent] = gives[key]
        found.pruned[owner] = smaller[key]
        found.parameters[agent], shape, found.widths[agent], found.kinds[owner], found.held[owner] = sizes[key]
        found.states[owner] = states[key]
        lonely.refuse(plan, found, agent, complaints[key])
        if drawn[key][0] == []:
            found.whole.add(owner)
        pruned.refuse_drawn(plan, owner, *drawn[key], modules)
        if agent == owner and owner not in modules:
            untrained.tell(plan, found, owner, *drawn[key])
        if plan.task_of(agent).outputs == "vocabulary":
            found.shapes[agent, ""] = shape[1:]
            continue
        outputs = len(spec.labels) if spec.labels is not None else plan.answers.outputs(found.table)
        samples = 2 if plan.task.rows == "samples" else shape[0]
        if tuple(shape) != (samples, outputs):
            whose = _whose(plan, agent, modules)
            raise MeshError(
                f"two samples give outputs of shape {tuple(shape)}, not (2, {outputs}), of {whose}",
                where=f"agents.{agent}.model",
                instead="a model with one output per class",
            )


def _ordered(plan: Plan) -> list[str]:
    """Agents, each after the one whose output it sees."""
    return inputs.order(plan.spec.agents, {name: edge.source for name, edge in plan.inputs.items()})


def _seen(plan: Plan, found: Checked, agent: str) -> Given:
    """What an agent sees of its input: shape and type of two samples' worth, as its source gives it."""
    edge = plan.inputs[agent]
    if found.reading.texts:
        what = f"{agent} sees what {edge.source} says of texts, which is not run by this version"
        raise MeshError(what, where=edge.where, instead="data of numbers")
    if edge.derived is not None:
        shape = found.shapes[edge.source, edge.output]
        return Given(shape, found.outputs[edge.source].dtype)
    return found.layers[edge.source, edge.output] if edge.output else found.outputs[edge.source]


def _whose(plan: Plan, agent: str, modules: Mapping[str, nn.Module]) -> str:
    """An agent's model, with the plugin that it is of."""
    owner = plan.owner[agent]
    model = plan.spec.agents[owner].model
    given = model is None or model.is_import or owner in modules
    theirs = "" if given or model is None else registry().theirs("models", model.name)
    return theirs or "the model"


def _rows_of(module: nn.Module, path: str) -> str:
    """What a layer's value has rows of, "": the outputs; a model of texts says, others have one per sample."""
    rows: Any = getattr(module, "rows", None)
    return "samples" if rows is None else str(rows(path))


def _held(module: nn.Module) -> tuple[int, int]:
    """Bytes of a model's parameters, and of those that train."""
    every = [(parameter.nbytes, parameter.requires_grad) for parameter in module.parameters()]
    return sum(size for size, _ in every), sum(size for size, trains in every if trains)


def _complaints(
    plan: Plan, found: Checked, agent: str, module: nn.Module, parts: list[nn.Module], device: torch.device
) -> dict[int, str]:
    """What a model in train mode says of two samples, and of one."""
    rows = plan.task_of(agent).rows == "samples"
    return lonely.complaints(module, parts, lambda n: found.reading.samples(agent, torch.arange(n)).to(device), rows)


def _made(
    plan: Plan, agent: str, layers: dict[str, torch.Tensor], logits: torch.Tensor, seen: Seen, found: Checked
) -> None:
    """Make each signal that an agent makes of a forward, of two samples, and note its shape.

    ``seen``: the module, the samples, and the agent's own taps.
    """
    module, x, taps = seen
    for edge in plan.edges:
        ends = {edge.source, edge.target} if edge.mirrored else {edge.source}
        if edge.derived is None or agent not in ends:
            continue
        offer = registry().find("signals", edge.derived.name)
        value = layers[edge.tap.of] if offer.reads == "hidden" and edge.tap is not None else logits
        if edge.unaligned:
            _statistic(plan, edge, offer, value, found)
            continue
        drawn.refuse(plan, edge, offer)
        still = agent == edge.source and bool(drawn.still(plan, edge))
        try:
            make = offer.make(edge.derived.config)
            parameters.of_signal(registry(), offer, make, f"{edge.where}.signal")
            make = partial(_make, offer, make, module, x, taps, layers, still)
            value = value if offer.lazy or "module" in offer.needs else _numbers(dense(value))
            if (agent == edge.target or not edge.detach) and (offer.lazy or not _differentiable(make, value)):
                if agent != edge.target:
                    raise MeshError(
                        f"no gradient passes through the signal {offer.name!r}",
                        where=f"{edge.where}.detach",
                        instead="leave it out, or signal: logits",
                    )
                raise ValueError(f"of {agent}'s own it gave something without gradient, which would train nothing")
            own = value
            shape = own.shape[1:] if offer.reads == "logits" and offer.form != "hidden" else None
            with torch.no_grad():
                value = make(value if offer.lazy else value.clone())
            guard.refuse_signal(value, own, shape, offer.form)
            found.shapes[agent, edge.output] = value.shape[1:]
            if isinstance(value, Lazy) and value.pack() is not None:
                found.numbers[agent, edge.output] = sum(part[:1].numel() for part in leaves(value))
        except MeshError as error:
            error.where = error.where or f"{edge.where}.signal"
            raise
        except FAULTS as error:
            registry().attribute_error("signals", offer.name, error, f"on the flow {edge}", edge.where)


def _statistic(plan: Plan, edge: Edge, offer: SignalOffer, value: torch.Tensor, found: Checked) -> None:
    """Make a signal whose rows are of no samples, of two, and compare its shape with those that meet it."""
    assert edge.derived is not None
    classes = plan.answers.outputs(found.table)
    if offer.reads == "hidden" and edge.tap is not None and (edge.source, edge.tap.of) in found.per_token:
        what = f"{offer.name} is of samples, and layer {edge.tap.of!r} of {edge.source} has a row for each token"
        raise MeshError(
            what, where=f"{edge.where}.tap", instead="a layer with a row for each sample, after the pooling"
        )
    try:
        labels = None if found.table.y is None else found.table.y[:2]
        with guard.seeded(0):
            make = offer.make(edge.derived.config)
            parameters.of_signal(registry(), offer, make, f"{edge.where}.signal")
            made, _ = making.statistic(offer, make, _numbers(dense(value)), labels, classes)
    except FAULTS as error:
        registry().attribute_error("signals", offer.name, error, f"on the flow {edge}", edge.where)
    found.shapes[edge.source, edge.output], found.statistics[edge.source, edge.output] = made.shape[1:], made.shape
    for other in plan.consensus[edge.target].members if edge.target in plan.consensus else ():
        theirs = found.statistics.get((other.source, other.output))
        if theirs is not None and theirs != made.shape:
            raise MeshError(
                f"{edge} carries {tuple(made.shape)}, and {other} {tuple(theirs)}: their rows cannot be combined",
                where=f"{edge.where}.{'signal' if edge.tap is None else 'tap'}",
                instead="layers of one width (`tap`), or a consensus for each",
            )


def _make(
    offer: SignalOffer,
    make: Any,
    module: nn.Module,
    x: Any,
    taps: tuple[str, ...],
    layers: dict[str, Any],
    still: bool,
    value: Any,
) -> Any:
    """Make a signal of what its offer needs, of two samples; all on `meta` where it needs the module, which is so.

    ``still``: its source answers in eval mode, where nothing may be drawn. What is asked is asked of the same.
    """
    beside = {name: layers[name].detach() for name in taps}
    if "module" not in offer.needs:
        x, beside = _numbers(x), {name: _numbers(layer) for name, layer in beside.items()}
    for layer in beside.values():
        layer.requires_grad_(torch.is_grad_enabled() and layer.is_floating_point())
    with guard.seeded(0, strict=still):
        asked = making.ask(make, value) if "asked" in offer.needs else None
        return making.made(offer, make, value, x, module, beside, 0, first=True, asked=asked)


def _numbers(value: Any) -> Any:
    """Random numbers in place of a value without memory: others' code may look at some, which `meta` has not."""
    if not isinstance(value, torch.Tensor) or not value.is_meta or value.numel() > NUMBERS:
        return value
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value.dtype)


def _differentiable(make: Callable[[torch.Tensor], Any], value: torch.Tensor) -> bool:
    """Whether a gradient passes through a signal that is made."""
    with torch.enable_grad():
        return bool(make(value.detach().clone().requires_grad_()).requires_grad)


def _light(
    plan: Plan, owner: str, agent: str, found: Checked, modules: dict[str, nn.Module]
) -> tuple[nn.Module, list[nn.Module], torch.Tensor | Tokens]:
    """The model without memory in eval mode, the parts held there, and two samples to match, or the only one.

    A module that cannot go to `meta` is built for real.
    """
    two, meta = found.reading.samples(agent, torch.arange(min(2, len(found.table)))), torch.device("meta")
    try:
        module = build(plan, owner, found.reading, registry(), modules, "meta")
        parts = held(module)
        types = {parameter.dtype for parameter in module.parameters()}
        if isinstance(two, torch.Tensor) and types - {two.dtype}:
            raise TypeError("computing on `meta` does not tell whether types fit")
        with torch.no_grad():
            module.eval()(two.to(meta))
        return module, parts, two.to(meta)
    except MeshError as error:
        if not error.where.startswith("agents."):
            error.where = f"agents.{owner}.{error.where or 'model'}"
        raise
    except Exception:  # whatever it is, the real model and its forward say it better
        try:
            module = build(plan, owner, found.reading, registry(), modules, "cpu")
        except MeshError as error:
            if not error.where.startswith("agents."):
                error.where = f"agents.{owner}.{error.where or 'model'}"
            raise
        except FAULTS as error:
            raise MeshError(
                f"{_whose(plan, owner, modules)} cannot be built: {text_of(error)}{line_of(error)}",
                where=f"agents.{owner}.model",
                instead="settings that its class takes",
            ) from None
        module = copy.deepcopy(module)
        parts = held(module)
        return module.eval(), parts, two


class Softmaxes(TorchDispatchMode):
    """Notes what softmaxes give while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self._given: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, and remember the value of a softmax over the last axis of rows."""
        value = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._softmax.default and value.dim() == 2 and args[1] in (1, -1):
            self._given.append(value)
        return value

    def gave(self, value: Any) -> bool:
        """Whether a value is that of a softmax."""
        return any(value is given for given in self._given)


def _tapped(module: nn.Module, layers: dict[str, str], agent: str, written: dict[str, str]) -> Taps:
    """The taps of a model; a layer that it lacks is refused where it was written."""
    try:
        return Taps(module, layers, f"agents.{agent}")
    except MeshError as error:
        error.where = written[error.where.removeprefix(f"agents.{agent}.taps.")]
        raise


def _forward(module: nn.Module, x: torch.Tensor | Tokens, agent: str, whose: str) -> Any:
    try:
        return output(module(x))
    except FAULTS as error:
        kind = f"samples of shape {tuple(x.shape[1:])}" if isinstance(x, torch.Tensor) else "texts"
        raise MeshError(
            f"{whose} cannot forward {kind}: {text_of(error)}{line_of(error)}",
            where=f"agents.{agent}.model",
            instead="a model for this data's shape and type",
        ) from None


def _entries(module: nn.Module, agent: str, whose: str) -> Any:
    """What a model's state has, see :func:`kdmesh.checks.merging.entries`."""
    try:
        return merging.entries(module)
    except FAULTS as error:
        raise MeshError(
            f"{whose} gives no state: {text_of(error)}{line_of(error)}",
            where=f"agents.{agent}.model",
            instead="a state_dict() of tensors, as every module has",
        ) from None


def _needed_taps(plan: Plan) -> dict[str, dict[str, str]]:
    """The taps that agents define and flows read, by agent, each with where it was written."""
    needed = {
        agent: {tap: f"agents.{agent}.taps.{tap}" for tap in spec.taps} for agent, spec in plan.spec.agents.items()
    }
    for edge in plan.edges:
        if edge.tap is None:
            continue
        for agent, tap, read in (
            (edge.source, edge.tap.of, edge.signal != "logits"),
            (edge.target, edge.tap.to, edge.reads == "hidden"),
        ):
            if read and agent in plan.spec.agents:
                if not tap:
                    raise MeshError("a tap that names no layer", where=f"{edge.where}.tap", instead="tap: layers.0")
                needed[agent].setdefault(tap, f"{edge.where}.tap")
    return needed


def _set_at(plan: Plan, owner: str, field: str) -> str:
    """The section of the file that sets a training setting of some weights."""
    own = plan.spec.agents[owner].train
    return "train" if getattr(own, field) is None else f"agents.{owner}.train"


def _told_by(plan: Plan, table: Table) -> None:
    """Columns by whose values metrics are told, or losses averaged, are there, and have values that samples share."""
    asked = [(f"metrics.{number}.{ref.name}.by", ref.by) for number, ref in enumerate(plan.spec.metrics)]
    asked += [(f"{edge.where}.denominator.group", edge.group) for edge in plan.edges]
    for where, column in asked:
        if column and column not in table.columns:
            instead = nearest(column, table.columns, "columns of words") if table.columns else "data with such a column"
            feature = f"column {column!r} is a feature, of numbers"
            found = feature if column in table.features else f"the data have no column {column!r}"
            raise MeshError(found, where=where, instead=instead)
        count = len(set(table.columns[column])) if column else 0
        if count > MOST_VALUES:
            what = f"column {column!r} has {count} different values, more than {MOST_VALUES}"
            raise MeshError(what, where=where, instead="a column whose values many samples share")


def _measured(plan: Plan, found: Checked) -> None:
    """Refuse settings by which none of the weights that have them would ever be measured; note it of single ones."""
    asked: dict[tuple[str, str, int], dict[str, int]] = {}
    for stage in plan.stages:
        for owner, whole in whole_epochs(plan, found, stage).items():
            train = plan.train(owner)
            if (field := _evaluated_by(train)) is not None:
                asked.setdefault((_set_at(plan, owner, field), field, train.evaluate_every or 1), {})[owner] = whole
    for (section, field, every), epochs in asked.items():
        never = [owner for owner, most in epochs.items() if most < every]
        text = f"every {every} epochs" if every > 1 else "at the end of an epoch"
        if len(never) == len(epochs):
            raise MeshError(
                f"`{field}` has no effect: it is measured {text}, and at most {max(epochs.values())} whole epochs "
                "are run",
                where=f"{section}.{field}",
                instead="a smaller `evaluate_every`, more `epochs`, or leave it out",
            )
        found.notes += [f"{owner}: `{field}` has no effect, with {epochs[owner]} whole epochs" for owner in never]


def _evaluated_by(train: TrainSpec) -> str | None:
    """The setting by which weights are measured on validation while they train; None where they are not."""
    fields = ("early_stopping", "keep_best", "evaluate_every")
    return next((field for field in fields if getattr(train, field) is not None), None)


def _settings(plan: Plan, owner: str, found: Checked, updates: int, modules: dict[str, nn.Module]) -> None:
    """Optimiser, schedule, device, weights file and early stopping can be what the file says."""
    train = plan.train(owner)
    device = train.device.split(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[device]:
        raise MeshError(
            f"there is no {device} device here", where=f"{_set_at(plan, owner, 'device')}.device", instead="device: cpu"
        )
    sections = _set_at(plan, owner, "optimizer"), _set_at(plan, owner, "schedule")
    if updates and not found.kinds[owner]:
        what = f"{_whose(plan, owner, modules)} has no weight that requires a gradient, and it is to train"
        raise MeshError(what, where=f"agents.{owner}.model", instead="requires_grad_(), or update: frozen")
    said = rehearse(found.kinds[owner] if updates else (), train, updates, sections)
    found.notes += [f"{owner}: {text}" for text in said]
    if (field := _evaluated_by(train)) is not None and "validation" not in found.streams:
        what = "early stopping" if field == "early_stopping" else f"`{field}`"
        raise MeshError(f"{what} needs a validation split", where="data.validation", instead="validation: 0.1")
    if "validation" not in found.streams:
        for gate, agent, _, where in gates(plan):
            if plan.owner[agent] == owner and OF_VALIDATION & {*registry().find("gates", gate.name).needs}:
                what = f"gate {gate.name!r} reads metrics of {agent} on validation, and there is none"
                raise MeshError(what, where=where, instead="data: {validation: 0.1}")
    if train.watches is not None and train.watches.metric is not None:
        where = f"{_set_at(plan, owner, field or '')}.{field}.metric"
        labels.watched(plan, found, train.watches.metric, where)
        unanswered.watched(plan, found, train.watches.metric, where)
    begins = plan.spec.agents[origin(plan, owner)]
    if begins.weights is not None:
        build(plan, owner, found.reading, registry(), modules, "cpu")
        if begins.new_heads:
            what = f"begins with {Path(begins.weights).name}, but for {', '.join(begins.new_heads)}"
            found.notes.append(f"{owner}: {what}, drawn anew by its seed")
