"""The Python interface: build a mesh with your own modules and data, run it, get trained modules back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kdmesh.engine.beginning import begun_from
from kdmesh.engine.collect import HERE, Place, is_url
from kdmesh.engine.experiment import Experiment
from kdmesh.engine.raising import MESH, raised
from kdmesh.engine.rates import Rates, find_rate
from kdmesh.engine.request import Request
from kdmesh.engine.resume import begun, refuse_part
from kdmesh.errors import MeshError, nearest
from kdmesh.files import RULE, found_at
from kdmesh.graph.plan import Plan
from kdmesh.graph.planner import make_plan
from kdmesh.graph.unrun import refuse_unrun
from kdmesh.hosts.modules import build
from kdmesh.hosts.packing import unpack
from kdmesh.hosts.preprocessing import Preprocessor
from kdmesh.hosts.remote import RemoteHost
from kdmesh.hosts.source import Source
from kdmesh.hosts.taps import AtExit
from kdmesh.inference.predictor import Predictor
from kdmesh.inference.trained import Trained
from kdmesh.plugins import registry
from kdmesh.report.drawing import formats
from kdmesh.spec.base import MOST
from kdmesh.spec.read import parse, read_mesh
from kdmesh.streams.from_torch import join, pool_from, table_from
from kdmesh.streams.learned import carry
from kdmesh.streams.table import Table
from kdmesh.tasks import compared

if TYPE_CHECKING:
    from kdmesh.engine.experiment import Outcome
    from kdmesh.engine.run import Run
    from kdmesh.hosts.written import Writer


GROWING: dict[str, type[dict[str, Any]] | type[list[Any]]] = {
    "agents": dict,
    "connect": list,
    "flows": list,
    "consensus": dict,
}
"""The sections of a mesh to which methods of :class:`Mesh` add."""


@dataclass
class AgentResult:
    """One agent after a run. ``metrics``: ``{split: {metric: figure}}``; ``module`` is in eval mode."""

    name: str
    role: str
    module: nn.Module
    metrics: dict[str, dict[str, Any]]
    weights_sha256: str


class Result:
    """What a run gave: agents by name, the summary, and the run's folder, if one was written.

    ``seeds``: one such result for each seed; the agents and the summary are those of the first. ``table``: what
    ``results.json`` holds, with statistics over seeds and verdicts.
    """

    def __init__(
        self,
        agents: dict[str, AgentResult],
        summary: dict[str, Any],
        folder: Path | None,
        seeds: list[Result] | None = None,
        table: dict[str, Any] | None = None,
    ) -> None:
        self.agents, self.summary, self.folder = agents, summary, folder
        self.seeds, self.table = seeds or [self], table or {}

    def __repr__(self) -> str:
        """The first seed's primary figure of each agent on test, and the folder."""
        by = compared(self.summary)
        figures = {name: by.of(agent.metrics.get("test")) for name, agent in self.agents.items()}
        shown = ", ".join(name if value is None else f"{name} {value:.4f}" for name, value in figures.items())
        seeds = f", {len(self.seeds)} seeds" if len(self.seeds) > 1 else ""
        return f"Result({by.title} on test: {shown}{seeds}; folder: {self.folder or 'none'})"

    def __getitem__(self, name: str) -> AgentResult:
        if name not in self.agents:
            raise MeshError(f"no agent {name!r} in this run", instead=nearest(str(name), self.agents, "agents"))
        return self.agents[name]


class Mesh:
    """A mesh built from code. Everything a YAML file can say, `Mesh(...)`, `agent` and `connect` can say too."""

    def __init__(self, *, data: Any = None, **fields: Any) -> None:
        """``data``: what :func:`data` made, or a data section such as ``"digits"``; ``fields``: those of the file."""
        if not isinstance(data, Table | str | dict | None):
            what = f"found {type(data).__name__}"
            raise MeshError(what, where="data", instead="kdmesh.data(train, test=...), or what a file says: 'digits'")
        self.table = data if isinstance(data, Table) else None
        self._fields: dict[str, Any] = {**{name: kind() for name, kind in GROWING.items()}, **fields}
        for name, kind in GROWING.items():  # copies: `agent`, `connect` ... add to them
            given = self._fields[name]
            if not isinstance(given, kind | tuple if kind is list else kind):
                instead = '{"NAME": {...}}' if kind is dict else "a list"
                raise MeshError(f"found {type(given).__name__}", where=name, instead=instead)
            self._fields[name] = kind(given)
        if not isinstance(splits := self._fields.pop("splits", {}), dict):
            what = f"found {type(splits).__name__}"
            raise MeshError(what, where="splits", instead='fields of `data` by name: {"validation": 0.1, "seed": 0}')
        if self.table is not None:
            self._fields["data"] = {"dataset": "python:given", **splits}
        elif data is not None:
            self._fields["data"] = data
        self._modules: dict[str, nn.Module] = {}
        self._writers: dict[str, Writer] = {}

    @classmethod
    def read(cls, source: str | Path, *overrides: str, data: Any = None) -> Mesh:
        """A mesh from a YAML file or a bundled name, with `path=value` overrides.

        ``data``: in place of the file's, as for :class:`Mesh`. Raises MeshError for whatever is wrong in them.
        """
        _a_path(source, "Mesh.read", instead="the path of a mesh file, or the name of a bundled mesh")
        for override in overrides:
            if not isinstance(override, str):
                what = f"found {type(override).__name__} as an override"
                raise MeshError(what, where="Mesh.read", instead='text: "train.epochs=3"; data by data=...')
        return cls(**{**read_mesh(source, overrides).dump(), **({"data": data} if data is not None else {})})

    def begin_from(self, run: str | Path) -> list[str]:
        """Begin with the weights that agents of the same names had at the end of a finished run.

        ``run``: its folder, `runs/<name>/<time>`. Returns, in words, which agents begin anew, and which were pruned
        there and are pruned again. Agents that share another's weights, or have a file of their own, stay as they are.
        Optimisers and schedules begin anew. Raises MeshError for what is no finished run's folder, and where no agent
        of this mesh has weights there.
        """
        _a_path(run, "begin_from", instead="a finished run's folder: runs/<name>/<time>")
        before = parse(self._fields)
        spec, anew = begun_from(before, Path(run), "begin_from")
        for name, agent in spec.agents.items():
            if agent != before.agents[name]:
                fields: dict[str, Any] = self._fields["agents"][name]
                kept = {field: value for field, value in fields.items() if field not in ("seed", "init_of")}
                model = agent.model
                if agent.weights is None and model is not None:  # a folder in place of a file
                    self._fields["agents"][name] = {**kept, "model": {model.name: model.config}}
                else:
                    self._fields["agents"][name] = {**kept, "weights": agent.weights}
        return anew

    def agent(self, name: str, model: nn.Module | str | dict[str, Any] | None = None, **fields: Any) -> str:
        """Add an agent and return its name. ``model``: a module, which is copied, or what a file would say."""
        self._new("agents", name)
        if isinstance(model, type):
            what, instead = f"found the class {model.__name__}", f"a module of it: {model.__name__}(...)"
            raise MeshError(what, where=f"agents.{name}.model", instead=instead)
        if isinstance(model, nn.Module):
            _made(model, f"agents.{name}.model")
            self._modules[name] = model
        elif model is not None:
            fields["model"] = model
        self._fields["agents"][name] = fields
        return name

    def connect(self, strategy: str, **config: Any) -> None:
        """Let a strategy draw flows between agents. ``strategy``: its name; ``config``: its settings."""
        if not isinstance(strategy, str):
            what = f"found {type(strategy).__name__}"
            raise MeshError(what, where="connect", instead='a strategy by name, its settings beside: "ensemble", ...')
        self._fields["connect"].append({strategy: dict(config)})

    def consensus(self, name: str, rule: str | dict[str, Any], **fields: Any) -> str:
        """Add a consensus node and return its name."""
        self._new("consensus", name)
        self._fields["consensus"][name] = {"rule": rule, **fields}
        return name

    def flow(self, source: str | list[str], target: str | list[str], **fields: Any) -> None:
        """Draw a flow by hand."""
        self._fields["flows"].append({"from": source, "to": target, **fields})

    def writer(self, stream: str, writer: Writer) -> None:
        """Give what writes a stream with `generated_by`: an object with ``write(step, agent)``, which is copied.

        See :mod:`kdmesh.hosts.written` for what it gives and when it is asked.
        """
        self._writers[stream] = writer

    def _new(self, section: str, name: Any) -> None:
        """Refuse a name that is not a text, or that another has."""
        if not isinstance(name, str):
            raise MeshError(f"found {type(name).__name__}", where=section, instead="a name, then what it is")
        if name in self._fields[section]:
            raise MeshError(f"{name!r} is there already", where=section, instead="another name")

    def plan(self) -> Plan:
        """Plan the mesh without running it."""
        registry().warn()
        plan = make_plan(parse(self._fields), registry())
        refuse_unrun(plan, registry(), self._writers)
        return plan

    def samples(self, stream: str = "train", agent: str | None = None) -> tuple[Tensor, Tensor | None, list[str]]:
        """The samples of a stream as an agent of this mesh sees them: what a teacher made elsewhere may be trained on.

        ``agent``: by default as `data.prepare` leaves them. Returns x ``[N, ...]``, labels where the stream shows any,
        and the names of the columns of x, none where they have none. MeshError for texts, which each model reads with a
        tokenizer of its own, and for a stream or an agent that is not there.
        """
        plan = self.plan()
        table, streams = Source(self.table).load(plan)
        for name, known, where in ((stream, streams, "stream"), (agent, plan.spec.agents, "agent")):
            if name is not None and name not in known:
                raise MeshError(f"no {where} {name!r}", where=where, instead=nearest(str(name), known, f"{where}s"))
        reading = Preprocessor(plan, table, registry(), None)
        x = table.numbers if agent is None else reading.numbers(agent)
        made = table.prepared if agent is None else reading.prepared(agent)
        found = streams[stream]
        rows = found.rows if agent is None else found.rows_for(agent)
        names = table.features if made is None else made.outputs
        return x[rows], table.y[rows] if table.y is not None and found.labelled else None, names

    def draw(self, path: str | Path | None = None, *, format: str | None = None, graphviz: bool = False) -> str | bytes:
        """Draw the mesh, and write it to ``path`` if one is given. Returns the text; of a PNG the bytes.

        ``format``: terminal, svg, png, mermaid or dot; by default what the path's ending says, else terminal.
        ``graphviz``: an SVG laid out by Graphviz; it and PNG need the extra `kdmesh[draw]`.
        """
        _a_path(path, "path", none=True)
        form = format or ("terminal" if path is None else formats.format_of(Path(path), "path"))
        drawing = formats.draw(self.plan(), form, graphviz=graphviz)
        if path is not None:
            formats.save(Path(path), drawing, "path")
        return drawing

    def run(
        self,
        *,
        backend: str | None = None,
        ray_address: str | None = None,
        out: str | Path | None = None,
        seeds: int | None = None,
        controls: bool | None = None,
        strict_signals: bool = False,
        resume: str | Path | None = None,
        from_start: bool = False,
        epochs: int | Mapping[str, int] | None = None,
        checkpoint_seconds: float = 60.0,
        progress_timeout: float = 600.0,
        store: str | Path | None = None,
    ) -> Result:
        """Run the mesh. ``out``: parent of the run's folder, or a URL that it is taken to; None writes none.

        ``backend``: ``"inline"`` or ``"ray"``; None trains in this process where that is fastest, else on Ray.
        ``seeds``: how many, from the mesh's seed on (1). ``controls``: train each student also alone, and by the best
        teacher only (False). ``strict_signals``: stop where a consensus gives NaN, a wrong shape or no distribution.
        ``resume``: the folder of this mesh's interrupted run, which goes on as it was begun; ``from_start``: also where
        no checkpoint of a stage is sound. ``epochs``: with ``resume`` of this mesh's finished run, which trains on to
        so many, all agents or those that are named, in a new folder. ``checkpoint_seconds``: age at which a checkpoint
        is written within a phase.
        ``progress_timeout``: seconds without a result after which a Ray host is lost; 0: never. ``store``: the folder
        in which answers of frozen and finished agents are kept, and found again by every later run, ``"off"`` for none;
        by default ``$KDMESH_STORE``, else one in the user's cache folder. Raises RunFailed, once
        all others are made, where a seed or a control failed. Notes, as of a model at chance, are printed to stderr;
        they stand in the result's ``summary["notes"]`` too.
        """
        registry().warn()
        _a_path(out, "out", none=True)
        _a_path(resume, "resume", none=True)
        _a_path(store, "store", none=True)
        for name, word in {"backend": backend, "ray_address": ray_address}.items():
            if word is not None and not isinstance(word, str):
                raise MeshError(f"found {type(word).__name__}", where=name, instead="text, or None")
        switches = {"controls": controls, "strict_signals": strict_signals, "from_start": from_start}
        for name, value in switches.items():
            if not isinstance(value, bool) and (name != "controls" or value is not None):
                raise MeshError(f"found {type(value).__name__}", where=name, instead="True or False")
        if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1):
            raise MeshError(f"found {seeds!r}", where="seeds", instead="how many: a whole number from 1")
        place = Place.writable(str(out)) if out is not None and is_url(out) else None
        if resume is not None:
            refuse_part(Path(resume))
        how = begun(Path(resume)) if resume is not None else {}
        for name, asked in (("seeds", seeds), ("controls", controls)):
            if asked is not None and how.get(name, asked) != asked:
                raise MeshError(
                    f"this run was begun with {name}={how[name]}", where=name, instead=f"leave it out, or {how[name]}"
                )
        request = Request(
            parse(self._fields),
            how.get("backend") if backend is None else backend,
            ray_address,
            HERE if place else Path(out) if out is not None else None,
            collect=place,
            modules=dict(self._modules),
            table=self.table,
            writers=dict(self._writers),
            strict_signals=strict_signals,
            resume=Path(resume) if resume is not None else None,
            from_start=from_start,
            checkpoint_seconds=checkpoint_seconds,
            progress_timeout=progress_timeout,
            seeds=how.get("seeds", 1) if seeds is None else seeds,
            controls=how.get("controls", False) if controls is None else controls,
            store=how.get("store") if store is None else str(store),
            advice="the same mesh's run(resume=...), to resume {}",  # ends in the folder: programs read it there
        )
        if request.controls and request.out is None and request.resume is None:
            raise MeshError("controls read the teachers' files", where="out", instead='out="runs"')
        if epochs is not None:
            request = raised(request, _epochs(epochs, resume))
        return _result(Experiment(request, self._collect).run(), request)

    def find_rate(
        self, agent: str | None = None, *, low: float = 1e-6, high: float = 1.0, updates: int = 100,
        store: str | Path | None = None,
    ) -> Rates:  # fmt: skip
        """Train ``agent`` for so many ``updates`` while its learning rate rises from ``low`` to ``high``.

        A learning-rate range test (Smith, 2017): see :class:`kdmesh.engine.rates.Rates` for what is found. None: the
        one agent that is trained last. All that it waits for is trained before. Only training losses are looked at;
        nothing is written. ``store``: as for :meth:`run`. MeshError for an agent that is not trained by gradients.
        """
        _a_path(store, "store", none=True)
        modules = {name: deepcopy(module) for name, module in self._modules.items()}  # the test trains them
        request = Request(
            parse(self._fields), "inline", modules=modules, table=self.table, writers=dict(self._writers),
            store=None if store is None else str(store),
        )  # fmt: skip
        return find_rate(request, agent, low, high, updates)

    def _collect(self, run: Run) -> dict[str, AgentResult]:
        """Fetch every agent's weights and build its module here."""
        found = {}
        for name in run.host_of:
            (state,) = run.backend.get([run.submit(name, RemoteHost.export_state, name)])
            module = build(run.plan, run.plan.owner[name], run.checked.reading, registry(), self._modules)
            module.load_state_dict({key: value[0] for key, value in unpack(state, torch.device("cpu")).items()})
            if (exit := run.plan.spec.agents[name].exit) is not None:
                module = AtExit(module, exit)
            carry(module, run.checked.learned[name])
            found[name] = AgentResult(name, run.roles[name], module.eval(), {}, "")
        return found


def _epochs(given: Any, resume: Any) -> dict[str, int]:
    """The epochs of :meth:`Mesh.run`, by agent."""
    if resume is None:
        instead = "resume=folder, of the finished run that trains on; a new run has train.epochs"
        raise MeshError("no run is named that would train on", where="epochs", instead=instead)
    found = dict(given) if isinstance(given, Mapping) else {MESH: given}
    for name, number in found.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST or not found:
            raise MeshError(f"{number!r} epochs", where="epochs", instead="a whole number, or {'student': number}")
        if not isinstance(name, str):
            raise MeshError(f"found {type(name).__name__}", where="epochs", instead="{'student': number}")
    return found


def _result(outcome: Outcome, request: Request) -> Result:
    """What came of a run, of every seed; its notes are printed."""
    root = outcome.folder.root if outcome.folder else None
    found = []
    for seed, summary in outcome.summaries.items():
        agents = outcome.extras[seed]
        for name, agent in agents.items():
            agent.metrics = summary["agents"][name]["metrics"]
            agent.weights_sha256 = summary["agents"][name]["weights_sha256"]
        own = root / "seeds" / str(seed) if root and request.seeds > 1 else root
        found.append(Result(agents, summary, own, table=outcome.table))
    for note in dict.fromkeys(note for one in found for note in one.summary["notes"]):
        print(f"kdmesh: note: {note}", file=sys.stderr)
    return Result(found[0].agents, found[0].summary, root, found, outcome.table)


def data(
    train: Any, validation: Any = None, test: Any = None, transfer: Any = None, *, classes: int | None = None
) -> Table:
    """Data from Python: map-style data sets of ``(x, y)``, pairs of tensors, or texts ``[("a text", 0), ...]``.

    Labels of texts are numbers of classes, names, or None for none: see
    :func:`kdmesh.streams.from_torch.from_texts`.

    ``transfer``: samples without labels, data sets of ``x`` or a tensor; labels that it has are not looked at.
    ``classes``: how many there are; by default what the labels show. Raises MeshError for what is no such data.
    """
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 1):
        raise MeshError(f"found {classes!r}", where="data.classes", instead="how many: a whole number from 1")

    def read(part: Any) -> Table | None:
        return None if part is None else table_from(part, classes)

    first = table_from(train, classes)
    return join(first, read(validation), read(test), None if transfer is None else pool_from(transfer))


def load(folder: str | Path, code: bool = True) -> nn.Module:
    """Give an agent's folder of a run back as a module in eval mode, ready to predict.

    ``module.predict(samples)`` answers arrays, rows with the columns that it learned from, or texts, in the words of
    the data: names of classes with their probabilities, see :class:`kdmesh.inference.predictor.Predictor`.

    A model of texts comes with its tokenizer: ``module(["a text"])`` gives logits, see :mod:`kdmesh.text.saved`.
    Of a consensus whose rule has weights or a state, `consensus/NAME` of a run is such a folder, too: its module
    combines the logits of the sources, see :class:`kdmesh.hosts.saved_rules.Combined`.

    Weights have the types that they were saved in. ``code`` False refuses a model that is named by an import path: an
    agent's folder that names one is a program, as a mesh is. Raises MeshError for a folder that is damaged, or whose
    class is not stored.
    """
    from kdmesh.hosts import loading

    _a_path(folder, "folder")
    module = loading.load(folder, code)
    if not hasattr(module, "predict") and not (Path(folder) / RULE).is_file():
        config = loading.described(folder)
        vars(module)["predict"] = Predictor(Trained(Path(folder), module, config))
    return module


def _a_path(value: Any, where: str, none: bool = False, instead: str = "a path, as text or a pathlib.Path") -> None:
    """Refuse what names no file or folder."""
    if not isinstance(value, str | Path) and not (none and value is None):
        raise MeshError(f"found {type(value).__name__}", where=where, instead=instead)
    if value is not None and (what := found_at(value)).startswith("is no path"):
        raise MeshError(what, where=where, instead=instead)


def _made(module: nn.Module, where: str) -> None:
    """Refuse a module whose weights are not there yet: nothing of it can be read, copied or trained."""
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(value):
            raise MeshError(
                f"{name} has no shape yet", where=where, instead="forward a batch once, or layers with sizes"
            )
        if value.is_meta:
            raise MeshError(f"{name} is on the device meta: it has no values", where=where, instead="a module on cpu")
