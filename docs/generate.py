"""Write the pages that say what the code says: ``python docs/generate.py``. `PAGES` names them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from kdmesh import hookspecs, offers, sections, trackers
from kdmesh.builtin import plugin as builtin
from kdmesh.consensus import Abstaining, Rule
from kdmesh.contracts.events import KINDS as EVENTS
from kdmesh.contracts.events import SCHEMA, Event
from kdmesh.contracts.run_info import RunInfo
from kdmesh.gates import Gate
from kdmesh.metrics import Answers, Metric
from kdmesh.objectives import Objective
from kdmesh.plugins import IN_FILES, KINDS, Registry
from kdmesh.prunings import Pruning
from kdmesh.recognisers import ByPattern, Entity, Recogniser
from kdmesh.samplers import Choices, Range, Sampler
from kdmesh.signals.lazy import Lazy
from kdmesh.spec import (
    AgentSpec,
    AnswersSpec,
    ConsensusSpec,
    DataSpec,
    EmaSpec,
    FlowSpec,
    HistorySpec,
    HostSpec,
    MeshSpec,
    MixSpec,
    ParticipationSpec,
    PartySpec,
    PrivacySpec,
    ProgramItem,
    Ramp,
    RetentionSpec,
    SamplingSpec,
    ShardSpec,
    StreamSpec,
    Strict,
    TapRef,
    TextSpec,
    TrainSpec,
    Until,
    ViewSpec,
)
from kdmesh.spec.canaries import CanariesSpec
from kdmesh.spec.elsewhere import fields as fields_of
from kdmesh.spec.explain import words_of
from kdmesh.spec.flows import DenominatorSpec
from kdmesh.spec.licences import LicencesSpec
from kdmesh.spec.personal import PersonalSpec
from kdmesh.spec.prepare import PrepareSpec
from kdmesh.spec.train import EarlyStopping, KeepBest, PrivateTraining
from kdmesh.strategies import Canvas, Strategy
from kdmesh.streams.table import Table
from kdmesh.tasks import Task

TARGET = Path(__file__).parent / "plugins" / "reference.md"
PUBLIC = {
    "kdmesh": "`hookimpl`, which marks a hook; `Mesh`, `data` and `load`, for your tests",
    "kdmesh.offers": "`Config` and the offers",
    "kdmesh.errors": "`MeshError`, for what the user can mend; `RunFailed`, for what broke",
    "kdmesh.gates": "`Gate` and the built-in gates",
    "kdmesh.consensus": "`Rule`, `Abstaining`, the built-in rules, and what to write one with",
    "kdmesh.objectives": "`Objective`, `Tempered`, the built-in objectives, and what to write one with",
    "kdmesh.strategies": "`Strategy`, `Canvas`, and what to draw with; imports no torch",
    "kdmesh.tasks": "`Task`, and which way a figure is better; imports no torch",
    "kdmesh.filters": "`Filter`, `WrittenText`, built-in filters; `TextRule`, `Candidate`, `Choice`, rules of texts",
    "kdmesh.metrics": "`Metric`, `Answers`, the built-in metrics",
    "kdmesh.prunings": "`Pruning`, the built-in rules, and what takes units out of a model of transformers",
    "kdmesh.recognisers": "`Recogniser`, `Entity`, the built-in recognisers, and `ByPattern` to write one with",
    "kdmesh.samplers": "`Sampler`, `Choices` and `Range`, for `kdmesh sweep`; imports no torch",
    "kdmesh.sections": "`Section` and its blocks, for `kdmesh_report`; imports no torch",
    "kdmesh.trackers": "`Tracker` and `Observer`, for plugins that keep figures of runs elsewhere; imports no torch",
    "kdmesh.signals.lazy": "`Lazy`, for signals that are made when they are asked for, and `dense`, which makes one",
    "kdmesh.streams.table": "`Table`, which a data set returns",
    "kdmesh.testing": "the [contracts](testing.md), for your tests",
}
BASE = {
    "name": "as a mesh names it",
    "factory": "where the code is, `module:attribute`; imported where it is used",
    "config": "its settings: a pydantic model that forbids unknown keys",
    "summary": "one line about it",
    "paper": "author, title, year",
    "api": "the plugin API it was written for",
}
INTERFACES = {  # a heading, the class that is explained, and the module whose functions help to write one
    "Strategies": (Strategy, "kdmesh.strategies"),
    "What a strategy draws on": (Canvas, ""),
    "Objectives": (Objective, "kdmesh.objectives"),
    "Consensus rules": (Rule, "kdmesh.consensus"),
    "Rules that may not answer": (Abstaining, ""),
    "Gates": (Gate, ""),
    "Signals that are made later": (Lazy, ""),
    "Tasks": (Task, "kdmesh.tasks"),
    "Metrics": (Metric, ""),
    "What a metric sees": (Answers, ""),
    "Pruning rules": (Pruning, "kdmesh.prunings"),
    "Recognisers of personal data": (Recogniser, "kdmesh.recognisers"),
    "What they find": (Entity, ""),
    "A recogniser by patterns": (ByPattern, ""),
    "Samplers": (Sampler, ""),
    "Values that a sampler is given": (Choices, ""),
    "A range that a sampler is given": (Range, ""),
    "Data sets": (Table, ""),
    "What an observer is told of a run": (RunInfo, ""),
    "What keeps figures of a run elsewhere": (trackers.Tracker, "kdmesh.trackers"),
    "What tells it": (trackers.Observer, ""),
    "Which run of a tracker a folder is": (trackers.Identity, ""),
    "Sections of a page": (sections.Section, "kdmesh.sections"),
    "What a page is of": (sections.ReportedRun, ""),
    "A paragraph": (sections.Text, "kdmesh.sections"),
    "A table": (sections.Table, "kdmesh.sections"),
    "A chart of lines": (sections.Lines, "kdmesh.sections"),
    "A line of it": (sections.Line, "kdmesh.sections"),
    "A chart of bars": (sections.Bars, "kdmesh.sections"),
    "A bar of it": (sections.Bar, "kdmesh.sections"),
}
ABOUT = {
    "Hooks that offer": "They return a list of offers. An offer has a name, so their order does not matter.",
    "Hooks that observe": (
        "They are called in the process that drives the run, and what they return is ignored. The order is: the run\n"
        "starts; of each stage that it starts, losses, evaluations and rounds as they come, that it finishes; the\n"
        "evaluations on test; that the run finished. It may fail at any time after its start. Stages without a path\n"
        "between them go on side by side. Each seed and each control is a run of its own, and so is one that is\n"
        "resumed.\n\n"
        "One that raises is named in a warning and told no more of this run, which goes on; its log has a note of it.\n"
        "What a plugin is given is its own copy. Plugins must not depend on their order."
    ),
    "Hooks that add to a page": (
        "Each plugin is asked alone. One that raises, or gives something else, is named on the page, which is made\n"
        "without what it gave."
    ),
    "Hooks that are asked": "The first answer that is not None counts. The built-in one comes last.",
}
HEAD = """\
<!-- Written by `python docs/generate.py` from the code: change that. -->

# Reference

What a plugin may use and what it can add. [Begin here](tutorial.md); [test it like this](testing.md).

## Modules a plugin may import

Nothing else of kdmesh, and no name that begins with an underscore: these stay as they are for one plugin API version.

"""
SETTINGS = """\

## Paths in settings

A setting that is a `pathlib.Path` by its type, or one of pydantic's that is (`FilePath`, `DirectoryPath`, `NewPath`),
may be relative in a mesh's file: it then starts from the folder of that file, wherever kdmesh is started, and the
factory gets it absolute. This holds for offers of every kind, and within lists, mappings, and settings in settings.
Where the type also allows a text (`str | Path`), and for settings that Python gave, it stays as it is written; so does
what has a scheme, `s3://...`. `FilePath` and `DirectoryPath` are refused, by the name of the setting, where nothing is
there.

```python
from pathlib import Path

from kdmesh.offers import Config
from pydantic import FilePath


class Prior(Config):
    file: FilePath
    more: list[Path] = []
```

Of data sets, `path`, `validation_path`, `test_path` and `folder` start there too if they are texts; so do an agent's
`weights`, and `path`, `tokenizer` and `trust_remote_code` of a model that are the name of a folder there. What Python
gave (`kdmesh.Mesh`) starts where Python was started.

## Where code is found

`factory` and `codec` of an offer are import strings, `package.module:attribute`, imported in the process that needs
the thing: strategies and samplers in the one that drives the run, most others on a host, which on Ray is a process of
its own, perhaps on another machine. A package must be installed there too; a single file of `--plugins-dir` is sent, as
text, and has its own name there, so that `file:attribute` is found on every host. What is beside it is not sent.
"""
APIS = {"0.1": (1,)}
"""Which plugin APIs each minor version of kdmesh takes."""
VERSIONS = """\

## Plugin API and kdmesh

Each offer says for which plugin API it was written: `api`, by default that of the kdmesh it is read with. The number
rises when something that plugins rely on goes away or changes its meaning, and not for what is added. A kdmesh takes
every API from 1 to its own; it refuses a later one, with what to upgrade. `kdmesh.__version__` says which kdmesh is
there; say in `dependencies` which ones you tested, as `kdmesh>=0.1,<0.2`.

"""
BOUNDARY = """\

## What is checked of what a plugin gives

Whatever comes back is looked at where it comes in. What is wrong ends the run with exit code 1 and one message: the
kind and name of the offer, its distribution and version, node or flow, step, what it gave, and what is due.

| kind | in every call |
| --- | --- |
| objectives | a tensor without axes, on the device of the student's signal, of its type and at least float32, or of float64, attached to it (a loss of 0 need not be); `loss_and_gradient` too leaves a gradient, and its target alone |
| consensus rules | shape `[B, C]` (`weights`: `[M, B]`, finite and 0 or more), type (or float32, where it is narrower) and device of what is combined; a gradient where one is to pass; who was answered, `[B]` bool |
| gates | a bool, or factors `[B]`, finite and 0 or more |
| signals | a row for each, the shape that the check saw, the same device, one type (of `logits` and `probs`: that of the logits), a gradient where one is to pass |
| views | shape, type and device of the samples; on a CPU finite, in the first 50 calls and then in every 50th |
| models | `[B, C]` of floating point, always of one type, on the agent's device; attached to weights that train; the mode that it was given in |
| metrics | a number below 2^63, or None; one that is NaN, of answers that are finite, counts as not defined; plain data where the offer is not `scalar`; `each`: a number a row |
| filters | a list of bools, one for each text |
| rules over texts | a `Choice`: a place among the texts or a reason, and plain data |
| pruning rules | a network of the same class; or a mask of bool for each weight, and as many left out as it said |
| tasks | `outputs` 1 or more, `decide` int64 a row, of classes one of them, `chance` a `Chance` or None |
| data sets | a `Table`, see there, on the CPU, without gradient, finite |
| samplers | one of the space's values for each path |
| `report()` of objectives and rules | finite numbers by name: no bools, tensors or NaN; what is not known yet is left out |
| `kdmesh_place_agents` | lists of agents by host |

Objectives, rules, gates, models and metrics may not change in place what they are given: others read it, too. Views and
signals get copies, which they may change. Whether a loss is finite is asked where it is read, in every step on a CPU, in
every 50th on other devices; the message then names the plugin whose part was not: the rule, signal or model of a target
that is not finite or no distribution, the model or the views of the student, else the objective. The numbers of `weights` are looked
at as often, factors of gates in every step. Observers' and strategies' return values are ignored.

At first, and in every 50th step from then on, on any device, more is looked at: that the gradient of an objective's loss
reaches the student's signal, and not an adapter or leaf alone; that no numbers were written through `.data` or numpy (of
models the first time alone); that rules and signals which give probabilities give such, and that `weights` sum to 1.
Nothing may be left behind in the process, as by `torch.set_grad_enabled` or `torch.set_default_dtype`, neither at first
nor as something is made. Nothing else here makes a device wait. A rule whose state moves, and whose offer is not
`stateful`, is refused before the run. `sys.exit` in a plugin is an error of it like any other.

Before anything is called, the parameters of what an objective, rule, gate or signal is called with are compared with its
offer: a name that the offer `needs` and the code does not take, or that the code cannot do without and the offer does not
need, is an error of its own, with exit code 2. What these checks cost: see `boundary` in [benchmarks](../benchmarks.md).
"""  # noqa: E501  # rows of a table
LEAVING = """\

## What goes away

Nothing that this page names goes away at once. A name, argument or attribute that will go keeps working for at least
one minor version; using it is a `DeprecationWarning`, which says what to use in its place and in which version it is
gone, and so does the changelog. What is new comes beside the old: a field of an offer last and with a default, a hook's
argument by name. Only an offer that asks for another `api` than a kdmesh has is refused, with that reason.

| deprecated | in its place | gone in |
| --- | --- | --- |
| `RunInfo.plan`, the planner's object | `RunInfo.mesh`, the long form | 0.3 |
| `Objective.descend`, overridden or called | `Objective.loss_and_gradient` | 0.3 |
| `slope` of an objective with a closed form | `gradient` | 0.3 |
"""
FACTORIES = {  # by kind: how a factory is called, and what it gives
    "strategies": ("factory(**settings)", "`kdmesh.strategies.Strategy`"),
    "objectives": ("factory(**settings)", "`kdmesh.objectives.Objective`"),
    "consensus": ("factory(**settings)", "`kdmesh.consensus.Rule` or `Abstaining`"),
    "gates": ("factory(**settings)", "`kdmesh.gates.Gate`"),
    "models": ("factory(*, input_shape: Sequence[int], classes: int, **settings)", "`torch.nn.Module`"),
    "datasets": ("factory(**settings)", "`kdmesh.streams.table.Table`"),
    "views": (
        "factory(seed: int, **settings)",
        "`view(x, ids, draw)`: samples of the same shape and type; with `mixes`, these, partners and shares",
    ),
    "signals": ("factory(**settings)", "`make(value, **facts)`: a row for each of `value`"),
    "tasks": ("factory(**settings)", "`kdmesh.tasks.Task`"),
    "metrics": ("factory(**settings)", "`kdmesh.metrics.Metric`"),
    "filters": ("factory(**settings)", "`kdmesh.filters.Filter`"),
    "text_rules": ("factory(**settings)", "`kdmesh.filters.TextRule`"),
    "prunings": ("factory(**settings)", "`kdmesh.prunings.Pruning`"),
    "recognisers": ("factory(**settings)", "`kdmesh.recognisers.Recogniser`"),
    "samplers": (
        "factory(*, axes: list[Choices | Range], count: int, seed: int, higher: bool, folder: Path, **settings)",
        "`kdmesh.samplers.Sampler`",
    ),
    "commands": ("factory(commands)", "nothing: it adds one parser"),
}
FACTORIES_HEAD = """\

## How a factory is called

`**settings` are the fields of the offer's `config`, by name, every default filled in, and as the pydantic model has
them: a nested model stays a model. They were checked before. `classes` is how many outputs a row of answers has. A
class is a factory where its `__init__` takes these.

"""
FACTORIES_END = """
A model of texts is called as `factory(*, task, classes, labels, vocabulary, pad, separator, **settings)`: see
`ModelOffer`. An objective, a rule and a gate are then set up, once, with what depends on the mesh: `setup` of each says
with what.
"""
TRAINING_HEAD = """\

## What `training` means

Objectives, rules and gates are torch modules, and so are models. `self.training` says what a call is for. Whatever is
to move only while somebody is taught (a memory, a count, running statistics) asks it, and whether gradients are on.

"""
TRAINING = [  # what is called, when, in which mode, whether gradients are on; tests/docs/test_training.py sees to it
    ("a model", "it trains in this phase", "True, but for parts that their owner put into eval mode", "on"),
    (
        "a model",
        "it does not train in this phase, and a flow reads it in each step",
        "False; True with `mode: train`",
        "off",
    ),
    ("a model", "it publishes a whole stream, or is measured", "False", "off"),
    ("a model", "a mesh is checked, on the device `meta`", "both", "off"),
    ("an objective", "a flow adds its loss", "True", "on"),
    ("an objective", "a gate asks for `losses`", "True", "on, for weights of rows alone"),
    ("a rule", "its readers are taught, by answers of this step or by published ones", "True", "on"),
    ("a rule", "it is measured", "False, of a copy", "off"),
    ("a gate", "in each step", "True", "off"),
    ("what `kdmesh.load` or a `Result` gives", "it is yours", "False", "as you have them"),
]
TRAINING_END = """
An objective is never measured: nothing asks it in eval mode but a loop of your own. State is the `state_dict`, buffers
and parameters: checkpoints hold it, a run that goes on has it back to the bit, and nothing else of the object survives.
"""
STATE = """\

## Where state lives

kdmesh makes an object of its own for each use: an objective for each edge, a rule for each consensus, a gate for each
flow or agent, a model for each set of weights. What differs from step to step belongs to that object, as a buffer.
Nothing else is right, though much of it seems to work while all is in one process:

- in the class, or as a default argument (`cache = {}`, `def f(x, seen=[])`): two flows with the same objective share
  it, and each sees the other's batches, where they are in one process; on Ray they may not be, and the bits differ
- in a global of the module, or under `functools.cache`: the same. Moreover a process makes several runs, as the trial
  steps of `check`, seeds, controls, one after another in Python: a later one begins with what an earlier one left
- in an attribute that is no buffer (`self.past = 0.0`): no checkpoint has it, so that a run that goes on, or one whose
  host was lost, begins anew with it
- in a file, a database, a service: hosts do not see each other's files, and where a run repeats its last steps nothing
  there is taken back

What follows from the settings or from the mesh alone, a table of constants say, may be cached anywhere: it is the same
wherever it is made. An observer is one for all runs of a process, and is told which by `run`; it keeps what it knows
by `run`, and forgets it as that one finishes or fails. The contracts look for the first three
(`test_several_share_nothing`, `test_state_reads_back`).
"""
FACTS = {  # what objectives, rules and gates may need, beside what each is always given: type, and what it is
    "labels": ("`[B]`, by the task", "the labels of the batch; refused where the stream has none"),
    "ids": ("`[B]` int64", "the stable ids of the samples"),
    "spans": ("`[N, 3]` int64", "what rows of texts in unlike tokens are about; with those of the source"),
    "tokens": ("`list[str]`", "both vocabularies, in `setup`"),
    "pairs": ("`[N, 3]` int64", "which sample, which answer, and which token a row is about; of streams of pairs"),
    "text": ("`[N]` int64", "of texts that an agent writes: which of the batch's a token is of"),
    "group": ("`[N]` int64", "of such: the id of the prompt's sample"),
    "reward": ("`[N]` float32", "of such: how right the whole text is"),
    "written": ("`[N]` float32", "of such: the token's log-probability by who wrote it, when it did"),
    "step": ("int", "batches of this lesson before this one, over all rounds"),
    "epoch": ("int", "of the lesson, from 0"),
    "round": ("int", "from 1; refused outside rounds"),
    "own": ("`[B, C]`", "the agent's own logits"),
    "other": ("`[B, C]`", "the logits of the agent that the mesh names with `of`"),
    "signal": ("`[B, ...]`", "what the flow carries"),
    "confidence": ("`[B]`", "the largest probability in each row of the signal"),
    "losses": ("`[B]`", "the flow's objective for each row"),
    "counted": ("`[B]` bool", "whether the flow compares the row"),
    "metrics": ("`dict[str, float]`", "the agent's figures on validation as last measured; empty before"),
    "measured_step": ("int or None", "what `step` was in the first step after that"),
    "measured_epoch": ("int or None", "what `epoch` was in that step"),
    "measured_age": ("int or None", "batches of this lesson since; 0 in that step"),
    "agreement": ("float or None", "of the sources of the agent's consensus, as last published in rounds"),
    "column": ("`[B]` int64", "the values of a column of the data, by number; -1: none"),
    "age": ("`tuple[int, ...]`", "of each source: in how many rounds in a row its party was away, this one too"),
    "errors": ("`[M, T]` float64", "squared error of each source on validation, as it last published"),
}
FLAGGED = {("consensus", "labels"): "needs_labels", ("consensus", "column"): "needs_column"}
FLAGGED |= {("consensus", "errors"): "needs_errors"}  # what a rule asks for by a field of its own
FACTS_HEAD = """\

## Facts

What an offer may ask for, to be given it in each call as a keyword of this name: in `needs`, or by a field of its own.
An objective always has `student`, `target`, `form` and `weights`, a rule `values`, `logits` and `present`, a gate
nothing. B rows: samples, or units of texts. What a signal may need is in `SignalOffer`.

"""
LONG_FORM = """\

## The long form in Python

What `Canvas` takes and `RunInfo.mesh` is made of: the fields of the [mesh file](../mesh-file.md), which has an example
of each, by the same names; but `from` is `from_` and `as` is `as_`. `Canvas.flow` has the first two as arguments, and
takes the others by keyword. Where a field names a choice, `ObjectiveRef(name="kl", config={"temperature": 4})` is what
`{kl: {temperature: 4}}` is in a file; a dict of the same form is read, too.
"""
SPECS = (FlowSpec, TapRef, Ramp, ConsensusSpec, AgentSpec, ViewSpec, EmaSpec, StreamSpec, ShardSpec, ProgramItem, Until)


def kind_of(hook: Any) -> str:
    """Under which heading a hook stands."""
    if hook.kdmesh_spec["firstresult"]:
        return "Hooks that are asked"
    if hook.__name__ == "kdmesh_report":
        return "Hooks that add to a page"
    return "Hooks that offer" if hook.__name__.removeprefix("kdmesh_") in KINDS else "Hooks that observe"


def hooks() -> list[Any]:
    """Every hook, in the order of the file."""
    return [hook for name, hook in vars(hookspecs).items() if name.startswith("kdmesh_")]


def offer_classes() -> list[type[offers.Offer]]:
    """Every class of offers, in the order of the file; that of them all first."""
    return [kind for kind in vars(offers).values() if isinstance(kind, type) and issubclass(kind, offers.Offer)]


def signature(function: Any) -> str:
    """A call as it is written, without `self`."""
    parts, starred = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else stars
        value = "..." if repr(parameter.default) == "<factory>" else repr(parameter.default)
        given = "" if parameter.default is parameter.empty else f" = {value}"
        parts.append(f"{stars}{parameter.name}: {parameter.annotation}{given}")
    gives = "" if inspect.isclass(function) else f" -> {inspect.signature(function).return_annotation}"
    return f"{function.__name__}({', '.join(parts)}){gives}"


EXAMPLES = {
    "A rule that goes by time": (
        "Sources count alike at first; the surer one of them takes over as epochs pass. Where sources are live, it is\n"
        "asked in each step; of what they publish, when a reader first reads that, and what it said then stands until\n"
        "they publish anew: also in a run that is taken up again.",
        '''\
import torch
from kdmesh import hookimpl
from kdmesh.consensus import Rule
from kdmesh.offers import Config, ConsensusOffer
from pydantic import Field


class Settings(Config):
    epochs: int = Field(10, ge=1, description="until the surest source decides alone, as far as it is sure")


class Settling(Rule):
    """From the mean to the most confident source; no paper."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def weights(self, logits, *, labels=None, present=None, epoch=0):
        sure = logits.softmax(-1).amax(-1) * (10 * min(epoch / self.epochs, 1))
        if present is not None:
            sure = sure.masked_fill(~present, -torch.inf)
            sure = torch.where(present.any(0), sure, 0)
        return sure.softmax(0)

    def forward(self, values, *, logits, labels=None, present=None, epoch=0):
        weights = self.weights(logits, present=present, epoch=epoch)
        return sum(torch.where(weight != 0, value, 0) * weight for value, weight in zip(values, weights[..., None]))


@hookimpl
def kdmesh_consensus():
    return [ConsensusOffer("settling", f"{__name__}:Settling", Settings, needs=("epoch",))]
''',
        """\
data: digits
agents:
  one: {model: {mlp: {hidden: [64]}}, update: frozen}
  two: {model: {cnn: {width: 8}}, update: frozen}
  s: {model: {mlp: {hidden: [16]}}}
consensus:
  c: {rule: {settling: {epochs: 2}}}
flows:
  - {from: [one, two], to: c, refresh: step}
  - {from: c, to: s, objective: kl}
train: {epochs: 3}
""",
    ),
    "Mean logits of classes, of sources with samples of their own": (
        "What a source sends has a row for each class, not for each sample (`aligned=False`), so that parties may see\n"
        "different samples: shards, other streams. It is made of all that the source sees of the stream each time it\n"
        "publishes. The consensus is of those who know a class; the objective looks up the row of each sample's label.",
        '''\
import torch
from kdmesh import hookimpl
from kdmesh.objectives import Objective, batchmean, comparable
from kdmesh.offers import Config, ObjectiveOffer, SignalOffer


class ClassLogits:
    """The mean of the logits for each class, and which classes there are."""

    def __call__(self, value, *, labels, classes):
        counts = torch.bincount(labels, minlength=classes)
        sums = value.new_zeros(classes, value.shape[1]).index_add(0, labels, value)
        return sums / counts.clamp(min=1)[:, None], counts > 0


class NearClass(Objective):
    """``sum_i w_{y_i} |z_i - g_{y_i}|^2 / B``. Jeong et al., federated distillation, 2018 (there cross-entropy)."""

    def forward(self, student, target, *, form="logits", weights=None, labels=None):
        known = None if weights is None else weights[labels]
        own, theirs = comparable(student, target[labels], known)
        return batchmean((own - theirs).square(), known)


@hookimpl
def kdmesh_signals():
    needs = ("labels", "classes")
    return [SignalOffer("class_logits", f"{__name__}:ClassLogits", form="logits", needs=needs, aligned=False)]


@hookimpl
def kdmesh_objectives():
    more = {"forms": ("logits",), "needs": ("labels",), "aligned": False}
    return [ObjectiveOffer("near_class", f"{__name__}:NearClass", Config, **more)]
''',
        """\
data: digits
streams:
  own: {shards: {by: class, classes: 5, of: ["party[*]"]}}
agents:
  party: {model: {mlp: {hidden: [16]}}, count: 3}
consensus:
  classes: mean
flows:
  - {from: labels, to: "party[*]", objective: ce, stream: own}
  - {from: "party[*]", to: classes, signal: class_logits, stream: own, refresh: epoch}
  - {from: classes, to: "party[*]", objective: near_class, stream: own, weight: 0.1}
train: {epochs: 5}
""",
    ),
}


def prose(thing: Any) -> str:
    """A docstring as Markdown."""
    text = re.sub(r":\w+:`", "`", inspect.getdoc(thing) or "").replace("``", "`")
    return re.sub(r"^(\w+)::$", r"\1:", text, flags=re.MULTILINE)


def example(hook: Any) -> str:
    """The plugin in a hook's docstring, with the two empty lines that a file has."""
    text = textwrap.dedent((inspect.getdoc(hook) or "").partition("Example::\n")[2]).strip() + "\n"
    return re.sub(r"\n\n(?=class |@|def )", "\n\n\n", text)


def hook_section(hook: Any) -> str:
    """One hook: its arguments, what it is for, and an example."""
    about = prose(hook).partition("Example:\n")[0].strip()
    return f"### {hook.__name__}\n\n```\n{signature(hook)}\n```\n\n{about}\n\n```python\n{example(hook)}```\n"


def offer_section(kind: type[offers.Offer]) -> str:
    """One class of offers: what it is, and its fields."""
    comments = BASE | dict(re.findall(r"^    (\w+): [^#\n]*#\s*(.*)$", inspect.getsource(kind), re.MULTILINE))
    own = [field for field in fields(kind) if kind is offers.Offer or field.name not in BASE]
    rows = [(f"`{field.name}`", f"`{field.type}`", default(field), comments.get(field.name, "")) for field in own]
    listed = table(("field", "type", "default", ""), rows) if rows else "No fields beside those of every offer.\n"
    title = "Every offer" if kind is offers.Offer else kind.__name__
    return f"### {title}\n\n{prose(kind)}\n\n{listed}{methods(kind)}"


def interface_section(title: str, kind: type, room: str) -> str:
    """One interface: its docstring, its public methods, and the functions that help to write one."""
    made = f"\n`{signature(kind)}`\n" if is_dataclass(kind) and kind is not RunInfo else ""  # which nobody makes
    if room == "kdmesh.sections":
        return f"### {title}\n\n{prose(kind)}\n\n`{block_signature(kind)}`\n"
    text = f"### {title}\n\n{prose(kind)}\n{made}{methods(kind)}"
    if room:
        module = import_module(room)
        helpers = [getattr(module, name) for name in module.__all__ if inspect.isfunction(getattr(module, name))]
        taken = " ".join(signature(helper) for helper in helpers)
        rows = [(f"`{signature(helper)}`", prose(helper).splitlines()[0]) for helper in helpers]
        for name in module.__all__:
            if re.search(rf"\b{name}\b", taken) and is_dataclass(getattr(module, name)):
                rows.append(
                    (f"`{block_signature(getattr(module, name))}`", " ".join(prose(getattr(module, name)).split()))
                )
        text += f"\nAlso in `{room}`:\n\n{table(('', ''), rows)}"
    return text


def block_signature(kind: type) -> str:
    """How a block of a page is made, its fields as they are written."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    parts = []
    for field in body.body:
        if isinstance(field, ast.AnnAssign):
            plain = field.value is None or isinstance(field.value, ast.Call)
            parts.append(f"{ast.unparse(field.target)}: {ast.unparse(field.annotation)}")
            parts[-1] += "" if plain else f" = {ast.unparse(field.value)}"
    return f"{kind.__name__}({', '.join(parts)})"


def methods(kind: type) -> str:
    """The public methods that a class defines itself, with their docstrings as quotations."""
    own = [method for name, method in vars(kind).items() if not name.startswith("_") and inspect.isfunction(method)]
    quoted = [textwrap.indent(prose(method), "> ", lambda _: True).replace("> \n", ">\n") for method in own]
    return "".join(f"\n`{signature(method)}`\n\n{text}\n" for method, text in zip(own, quoted, strict=True))


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table in Markdown, where a bar inside a cell, even in code, would end it."""
    lines = [head, ("---",) * len(head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def default(field: Any) -> str:
    """The default of an offer's field, as it is written."""
    value = field.default
    if value is offers.Config:
        return "`Config`"
    return "required" if not field.init or "MISSING" in type(value).__name__ else f"`{value!r}`"


def facts() -> Iterator[tuple[str, ...]]:
    """Each fact, with who may need it."""
    kinds = ("objectives", "consensus", "gates")
    for name, about in FACTS.items():
        asked = [
            FLAGGED.get((kind, name)) or ("needs" if name in offers.KNOWN[kind]["needs"] else "") for kind in kinds
        ]
        yield (f"`{name}`", *about, *(f"`{how}`" if how else "" for how in asked))


def reference() -> str:
    """The whole page."""
    text = HEAD + table(("module", "what is in it"), [(f"`{module}`", about) for module, about in PUBLIC.items()])
    versions = [(one, ", ".join(map(str, apis))) for one, apis in APIS.items()]
    text += SETTINGS + BOUNDARY + VERSIONS + table(("kdmesh", "plugin API"), versions) + LEAVING
    for title, about in ABOUT.items():
        text += f"\n## {title}\n\n{about}\n"
        text += "".join(f"\n{hook_section(hook)}" for hook in hooks() if kind_of(hook) == title)
    text += (
        "\n## Offers\n\nDescriptions, from `kdmesh.offers`. Reading one imports neither torch nor what it describes.\n"
    )
    text += "".join(f"\n{offer_section(kind)}" for kind in offer_classes())
    calls = [(kind, f"`{call}`", gives) for kind, (call, gives) in FACTORIES.items()]
    text += FACTORIES_HEAD + table(("kind", "called as", "gives"), calls) + FACTORIES_END
    text += TRAINING_HEAD + table(("what is called", "when", "`self.training`", "gradients"), TRAINING) + TRAINING_END
    text += STATE + FACTS_HEAD + table(("fact", "type", "what", "objective", "rule", "gate"), list(facts()))
    text += "\n## What the factory of an offer makes\n\nA model is any torch module; a view, any callable.\n"
    text += "".join(f"\n{interface_section(title, *about)}" for title, about in INTERFACES.items())
    text += "\n## Examples\n\nEach is a file of `$KDMESH_PLUGINS_DIR`, and a mesh that uses it.\n"
    for title, (about, code, mesh) in EXAMPLES.items():
        text += f"\n### {title}\n\n{about}\n\n```python\n{code}```\n\n```yaml\n{mesh}```\n"
    text += LONG_FORM
    for kind in SPECS:
        text += f"\n### {kind.__name__}\n\n{prose(kind)}\n\n{table(('field', 'type', 'default', ''), field_rows(kind))}"
    return text


SECTIONS: dict[type[Strict], str] = {
    MeshSpec: """\
name: council
description: Three teachers and a student.
task: classification
metrics: [balanced_accuracy]
primary: macro_f1
seed: 0
data: {dataset: digits}
text: {max_length: 128}
streams: {few: {of: train, size: 100}}
agents: {t: {model: mlp}, s: {model: mlp}}
connect:
  - ensemble: {teachers: t, student: s}
consensus: {}
flows: []
program: []
train: {epochs: 20}
placement: auto
parties: {clinic: {agents: t, data: {csv: {path: clinic.csv, label: y}}}}
participation: {quorum: 1}
keep: {checkpoints: end}
licences: {purpose: commercial}
""",
    RetentionSpec: """\
checkpoints: end
events: 90d
texts: 30d
answers: 365d
personal: 2190d
""",
    ParticipationSpec: """\
fraction: 0.5
quorum: 3
timeout: 60
stale: forget
attendance: [[north, south], [south]]
""",
    PartySpec: """\
agents: ["clinic[*]"]
data: {csv: {path: clinic.csv, label: y}}
samples: 400
licence: CC-BY-4.0
privacy: {epsilon: 8, delta: 1e-5}
""",
    PrivacySpec: """\
epsilon: 8
delta: 1e-5
unit: sample
adjacency: replace
""",
    DataSpec: """\
dataset: {csv: {path: data.csv, label: y}}
test: 0.2
validation: 0.1
transfer: 500
train: 1000
stratify: true
seed: 0
prepare: [{columns: numbers, impute: median, scale: standard}]
personal: {action: redact, profile: hipaa}
canaries: {kind: random, count: 64}
licence: CC-BY-4.0
""",
    CanariesSpec: """\
kind: secret
count: 64
times: 4
prompt: "Guest {number}:"
text: " the code is {secret}."
characters: "0123456789"
length: 8
""",
    LicencesSpec: """\
purpose: commercial
policy: strict
""",
    PersonalSpec: """\
action: pseudonymise
profile: hipaa
find: [{words: {path: patients.txt, kind: PERSON}}, {pattern: {match: "MRN-[0-9]{6}", kind: RECORD}}]
kinds: [PERSON, RECORD, EMAIL, PHONE]
allow: [info@example.org]
columns: [note]
""",
    PrepareSpec: """\
- columns: numbers
  missing: ["?"]
  impute: median
  indicator: true
  scale: standard
- columns: [grade]
  encode: ordinal
  order: [low, high]
  unseen: ignore
- columns: [postcode]
  encode: hash
  outputs: 16
""",
    StreamSpec: """\
of: train
rest_of: [few]
select: selection.json
size: 100
where: {source: [a, b]}
only: [0, 1, 2]
without: [2]
labels: false
shards: {by: iid, of: [a, b]}
private: false
pooled: false
replay: false
pairs: false
generated_by: s
prompts: train
refresh: step
sampling: {max_new_tokens: 64}
label: topic
mix: {of: train, share: 0.5}
keep: [length, {perplexity: {of: t, max: 50}}]
reward: [numeric_answer, {"my_checks:right": {weight: 2, time_limit: 5}}]
reads: {a: first}
template: "{{ prompt }} One answered: {{ a.text }}"
consensus_of: [first, second]
rule: {vote: {share: 0.5}}
measured: true
history: all
""",
    MixSpec: """\
- of: train
  share: 0.5
- of: train
  gate: late          # in place of share: one that is offered, by step, epoch, round or metrics
""",
    SamplingSpec: """\
max_new_tokens: 64
temperature: 0.8
top_p: 0.95
top_k: 50
greedy: false
samples: 2
stop: ["Question:"]
""",
    ShardSpec: """\
by: dirichlet
of: [a, b, c]
alpha: 0.5
classes: 2
column: null
""",
    AgentSpec: """\
model: {mlp: {hidden: [64]}}
weights_of: null
weights: net.safetensors
new_head: head
saved: copy
update: {ema: {of: s, decay: 0.99}}
view: {augment: [shift]}
prepare: null
prune: []
quantize: null
answers: {form: int8}
exit: layers.0
taps: {mid: layers.0}
train: {epochs: 5}
seed: 7
init_of: null
labels: [0, 1, 2]
gate: {gap: {of: s}}
on_loss: drop
licence: null
count: 3
""",
    ViewSpec: """\
augment: [shift, {noise: {std: 0.1}}, {mixup: {alpha: 0.4}}]
draws: 1
prompt: null
of: s
apart: true
""",
    AnswersSpec: """\
form: int8
""",
    EmaSpec: """\
of: s
decay: 0.99
warmup: true
buffers: copy
mode: eval
""",
    TrainSpec: """\
epochs: 20
steps: null
batch_size: 64
drop_last: false
optimizer: {adamw: {lr: 1e-3}}
schedule: {cosine: {warmup: 100}}
clip: 1.0
private: null
accumulate: 1
forward_size: 64
precision: fp32
threads: auto
device: cpu
early_stopping: {metric: loss, patience: 5}
keep_best: null
evaluate_every: 1
""",
    PrivateTraining: """\
noise_multiplier: 1.0
max_grad_norm: 1.0
""",
    EarlyStopping: """\
metric: accuracy
patience: 5
""",
    KeepBest: """\
metric: accuracy
""",
    TextSpec: """\
max_length: 512
over: truncate
bucket: true
pack: false
vocabulary: exact
decoding: {max_new_tokens: 64, greedy: true}
reasoning: [<think>, </think>]
""",
    ConsensusSpec: """\
rule: {trimmed_mean: {trim: 0.25}}
space: probs
temperature: 4
include_self: false
trained: false
per_target: false
history: all
""",
    HistorySpec: """\
keep: {ema: 0.9}
sources: true
""",
    FlowSpec: """\
from: [a, b]
to: s
as: target
signal: logits
tap: {of: layers.2, to: layers.0}
stream: transfer
objective: {kl: {temperature: 4}}
weight: {start: 0, end: 1, epochs: 10}
refresh: 10 steps
stale: snapshot
sees: before
detach: true
mode: auto
lesson: digest
denominator: {group: domain}
part: answer
discloses: prototypes
gate: {small_loss: {of: b, forget: 0.2}}
""",
    DenominatorSpec: """\
group: domain
""",
    Ramp: """\
start: 0
end: 1
epochs: 10
""",
    TapRef: """\
of: layers.2
to: layers.0
""",
    ProgramItem: """\
- of: [a, b]
  repeat: 10
  until: {agreement: 0.95}
  do:
    - {lesson: own, epochs: 1}
    - {publish: [a, b], to: c}
    - {lesson: digest, train: [a], steps: 50}
""",
    Until: """\
agreement: 0.95
patience: 3
of: c
""",
    HostSpec: """\
agents: [a, b]
cpus: 2
gpus: 0.5
resources: {big_node: 1}
""",
}
"""Every part of the file, each with an example that writes all its fields."""

RECIPES = {
    "Few labels": """\
name: few-labels
data: {dataset: digits, transfer: 0.5}
streams:
  few: {of: train, size: 100}
agents:
  teacher: {model: {cnn: {width: 16}}}
  student: {model: {mlp: {hidden: [32]}}}
connect:
  - ensemble:
      {teachers: teacher, student: student, stream: transfer, labels_stream: few, labels: 0.5}
train: {epochs: 100, batch_size: 32}
""",
    "An unlabelled pool": """\
name: unlabelled-pool
data: {dataset: digits, transfer: 0.6}
agents:
  one: {model: {mlp: {hidden: [128]}}}
  two: {model: {cnn: {width: 16}}}
  student: {model: {mlp: {hidden: [32]}}}
connect:
  - ensemble: {teachers: [one, two], student: student, consensus: mean, stream: transfer, labels: null}
train: {epochs: 30}
""",
    "Several seeds": """\
name: several-seeds
seed: 0
data: {dataset: digits, seed: 0}
agents:
  teacher: {model: {mlp: {hidden: [256, 256]}}}
  student: {model: {mlp: {hidden: [16]}}}
connect:
  - ensemble: {teachers: teacher, student: student}
train: {epochs: 20}
""",
    "Chats": """\
name: chats
task: language_modelling
data: {dataset: {text: {path: chats.jsonl, messages: messages}}, test: 0.2}
text: {max_length: 128, over: drop}
agents:
  teacher: {model: {hf: {path: teacher-model}}, update: frozen}
  student: {model: {hf: {path: student-model}}}
connect:
  - ensemble: {teachers: teacher, student: student, objective: {kl: {temperature: 2}}, labels: 0.5}
train: {epochs: 3, batch_size: 8, optimizer: {adamw: {lr: 1e-4}}}
""",
    "Private shards": """\
name: private-shards
data: {dataset: digits, transfer: 0.5}
streams:
  own: {of: train, shards: {by: class, classes: 4, of: ["party[*]"]}, private: true}
agents:
  party: {model: {mlp: {hidden: [32]}}, count: 3}
connect:
  - rounds: {students: "party[*]", rounds: 10, labels_stream: own, stream: transfer}
train: {batch_size: 32}
""",
    "Public and private labels": """\
name: public-and-private
data: digits
streams:
  public: {of: train, size: 300}
  own: {of: train, rest_of: public, private: true, shards: {by: dirichlet, alpha: 1, of: ["party[*]"]}}
agents:
  party: {model: {mlp: {hidden: [32]}}, count: 3}
consensus:
  agreed: {rule: mean, space: logits}
flows:
  - {from: labels, to: "party[*]", objective: ce, stream: public, lesson: public}
  - {from: labels, to: "party[*]", objective: ce, stream: own, lesson: own}
  - {from: "party[*]", to: agreed, stream: public, refresh: round}
  - {from: agreed, to: "party[*]", objective: mae, lesson: digest}
program:
  - {of: "party[*]", lesson: public, epochs: 5}
  - {of: "party[*]", lesson: own, epochs: 2}
  - of: "party[*]"
    repeat: 5
    do:
      - {publish: "party[*]", to: agreed}
      - {lesson: digest, epochs: 1}
      - {lesson: own, epochs: 1}
train: {batch_size: 32}
""",
    "A consensus that is kept": """\
name: kept
data: {dataset: digits}
agents:
  peer: {model: {mlp: {hidden: [32]}}, count: 3}
  student: {model: {mlp: {hidden: [16]}}}
consensus:
  middle: median
flows:
  - {from: labels, to: "peer[*]", objective: ce}
  - {from: "peer[*]", to: middle, refresh: 10 steps}
  - {from: middle, to: student, objective: kl, refresh: epoch}
train: {epochs: 5}
""",
    "A teacher that rests": """\
name: switched
data: digits
agents:
  teacher: {model: {mlp: {hidden: [256, 256]}}, gate: {gap: {of: student}}}
  student: {model: {mlp: {hidden: [16]}}}
connect:
  - mutual: {peers: [teacher, student]}
train: {epochs: 20}
""",
    "Noisy labels": """\
name: co-teaching
data: digits
agents:
  a: {model: {mlp: {hidden: [64]}}}
  b: {model: {cnn: {width: 16}}}
flows:
  - {from: labels, to: a, objective: ce, gate: {small_loss: {of: b, forget: 0.2, epochs: 10}}}
  - {from: labels, to: b, objective: ce, gate: {small_loss: {of: a, forget: 0.2, epochs: 10}}}
train: {epochs: 30}
""",
    "Federated averaging": """\
name: federated
data: digits
streams:
  own: {of: train, shards: {by: dirichlet, of: ["party[*]"]}, private: true}
agents:
  server: {model: {mlp: {hidden: [32]}}, update: merged}
  party: {model: {mlp: {hidden: [32]}}, init_of: server, count: 3}
flows:
  - {from: labels, to: "party[*]", objective: ce, stream: own}
  - {from: "party[*]", to: server, as: weights, weight: samples, stream: own, refresh: round}
  - {from: server, to: "party[*]", as: weights, refresh: round}
program:
  - of: [server, "party[*]"]
    repeat: 10
    do: [{train: "party[*]", epochs: 1}, {publish: "party[*]"}, {publish: server}]
train: {batch_size: 32, optimizer: {sgd: {lr: 0.1}}}
""",
    "Averaged weights": """\
name: averaged
data: digits
agents:
  net: {model: {mlp: {hidden: [32]}}}
  mean: {model: {mlp: {hidden: [32]}}, update: merged}
consensus:
  swa: running_average
flows:
  - {from: labels, to: net, objective: ce}
  - {from: net, to: swa, as: weights, refresh: epoch}
  - {from: swa, to: mean, as: weights}
train: {epochs: 20}
""",
    "Features as inputs": """\
name: group-knowledge-transfer
data: digits
agents:
  client: {model: {mlp: {hidden: [16]}}, count: 2}
  server: {model: {mlp: {hidden: [128, 64]}}}
  other: {weights_of: server}
flows:
  - {from: labels, to: ["client[*]", server, other], objective: ce}
  - {from: "client[0]", to: server, as: input, signal: hidden, tap: layers.0, refresh: round}
  - {from: "client[1]", to: other, as: input, signal: hidden, tap: layers.0, refresh: round}
  - {from: "client[0]", to: server, objective: {kl: {temperature: 3}}, refresh: round}
  - {from: "client[1]", to: other, objective: {kl: {temperature: 3}}, refresh: round}
  - {from: server, to: "client[0]", objective: {kl: {temperature: 3}}, refresh: round}
  - {from: other, to: "client[1]", objective: {kl: {temperature: 3}}, refresh: round}
program:
  - of: ["client[*]", server, other]
    repeat: 10
    do:
      - {train: "client[*]", epochs: 1}
      - {publish: "client[*]"}
      - {train: [server, other], epochs: 3}
      - {publish: [server, other]}
train: {batch_size: 32}
""",
}
ABOUT_RECIPES = {
    "Few labels": (
        "`epochs` counts passes over the *first* stream of a lesson, here the 100 labelled samples of `few`: an epoch\n"
        "is four updates of 32, and the other stream is read along, as many batches as that takes. So a few-label\n"
        "mesh wants many epochs, or a budget in `steps`."
    ),
    "An unlabelled pool": "The transfer split has no labels: only what the teachers say about it is learned there.",
    "Several seeds": (
        "`kdmesh run FILE --seeds 5 --controls`. `data.seed` holds the splits, the same for all seeds of a command;\n"
        "`seed` holds initial weights, order and augmentation."
    ),
    "Chats": (
        "`messages` names a column of turns, `[{role: user, content: ...}, {role: assistant, content: ...}]`. The\n"
        "models are folders made by `save_pretrained`, or hub ids, whose tokenizer has a chat template; the two read\n"
        "texts with one tokenizer, or use an objective for unlike ones (`span`, `uld`)."
    ),
    "Private shards": "Each party trains on its own classes; no signal made on `own` leaves its host.",
    "Public and private labels": (
        "As FedMD: parties learn from the labels of `public`, which all see, and then from private ones, each from\n"
        "its own part of what is left of `train`; in rounds they agree on `public`. `rest_of` has exactly the samples\n"
        "that the streams which it names have not taken: `public` and `own` share none and are `train` together."
    ),
    "A consensus that is kept": (
        "`refresh` on the flow from an agent says how often it publishes; on the flow from a consensus, how often\n"
        "that is made anew for this reader, of what was published by then. Until then the reader sees what it was,\n"
        "also in a run that is taken up again. Without it, it is made anew as soon as a source publishes; with\n"
        "`step`, a rule that goes by the step is asked in each one, though its sources are frozen. The first is\n"
        "made as soon as a source has published. `round`: where its sources publish in the round, or, if the\n"
        "program's lines publish nothing, as the round begins. `once`: never again. A period in which it could not\n"
        "be kept, because a source answers each batch anew, and one that would change nothing are refused."
    ),
    "A teacher that rests": (
        "A `gate` of an agent says, in each step, whether its weights are updated; here the teacher is not while its\n"
        "student is too far behind (SwitOKD). What is skipped does not move: weights, optimiser, schedule, counts of\n"
        "updates, and averages that follow. The forward is made, so running statistics of norms do move. `of` names\n"
        "the agent that the gate looks at; until that one has answered, the gate is shut."
    ),
    "Noisy labels": (
        "A `gate` of a flow says whether the flow adds its loss, or gives each row a factor: here each of two learns\n"
        "from the rows whose loss is small for the other one (co-teaching). Where gates leave an agent no loss, its\n"
        "update is skipped; of an accumulation, only that batch, and its share of the rows with it. `summary.json`\n"
        "says by agent, under `gates`, in how many steps each was asked, in how many of these it was shut, and which\n"
        "share of rows it kept. It is not asked while the agent's own gate is shut, nor while nothing is known of\n"
        "the agent that it looks at. Where `detach: false` joins updates, agents that no loss reaches stay put.\n"
        "Controls go without gates that look at an agent which they leave out."
    ),
    "Federated averaging": (
        "A flow `as: weights` brings weights, at a time, to an agent with the same architecture; unlike ones are\n"
        "refused, with the entries of their states that differ. The agent takes the average of what arrives at that\n"
        "time, by the flows' `weight`: a number, or `samples`, as many as the source has on `stream`. Here the\n"
        "parties' weights leave where the program publishes them, then the server's (FedAvg). Other times are\n"
        "`refresh: epoch`, `5 steps` (updates of the source), and `once`, before the target's stage, from agents\n"
        "that have finished or are frozen: the default where it is possible, for a start from trained weights, or\n"
        "for a soup of them. All weights that leave at one time leave before any arrives. An agent's own weights\n"
        "count only by a flow from itself to itself. An agent with `update: merged` changes by such flows alone,\n"
        "and has its initial weights until something arrives.\n\n"
        "Parameters and floating point buffers (running statistics of norms) are averaged, in the order of the\n"
        "flows; whole numbers and truth values (counts of batches, masks) are those of the first source. A single\n"
        "flow copies all. The target's optimiser stays as it is, with its moments, its schedule and gradients that\n"
        "are accumulating. New weights are no update: counts of updates do not move, and an agent that follows by\n"
        "`ema` does so at the target's next update. Where a loop makes a new optimiser in every round, as FedAvg is\n"
        "often written, it has the same bits for an optimiser without state. Early stopping puts back the best\n"
        "weights where a lesson ends, before a `publish` line. Weights that learned on a private stream may leave\n"
        "their host, and `check` says where; samples and signals made on it still do not."
    ),
    "Averaged weights": (
        "Flows `as: weights` into a consensus combine weights by its rule, here the mean over all epochs so far\n"
        "(SWA). Its space is `weights`: `mean`, `weighted`, `median` and `trimmed_mean` combine the weights of\n"
        "several agents entry by entry, `geometric_median` as one vector. It combines once for all readers what\n"
        "arrives at a time; a source whose weights do not leave then is absent. `include_self: false` leaves a\n"
        "reader's own weights out. Statistics of batch norms are averaged too, where Izmailov et al. make them anew\n"
        "by a pass over the data. To begin later, use a program: a line `{train: net, epochs: 10}`, then rounds of\n"
        "an epoch each with a line `{publish: net}`, and `refresh: round`, as the bundled `swa` has it."
    ),
    "Features as inputs": (
        "A flow `as: input` into an agent gives it what another agent says of a sample, a layer's output (`signal:\n"
        "hidden`, with its `tap`) or logits, in the sample's place. Here a large server learns on the features of\n"
        "small clients, which hear its logits a round later (FedGKT). An agent has one input, on every stream that\n"
        "it is forwarded on; the server's weights have a view (`weights_of`) for each client. Clients and server\n"
        "see the same stream: what is made on a private one stays refused.\n\n"
        "With `refresh: round`, `epoch` or `5 steps` the agent sees what was last published, and once more before\n"
        "the stage begins; what it publishes is of that. With `refresh: step` it sees what its source says in the\n"
        "step itself, and with `detach: false` its gradients pass on: two halves of one network. It is measured on\n"
        "what its source says now, on validation and test as well. Its folder has a model of such inputs, and\n"
        "`config.json` their shape. An agent with an input has no augmentation, does not stay frozen, and has no\n"
        "controls; inputs that are texts, and of several agents at once, are not run."
    ),
}
MESH_HEAD = """\
<!-- Written by `python docs/generate.py` from the code: change that. -->

# The mesh file

A mesh is one YAML file (version 1.2: `no` is a word, `1e-3` a number, a key stands once). `kdmesh plan FILE` shows what
it will do, `kdmesh check FILE` builds its models and reads its data, `kdmesh run FILE` trains it; `kdmesh schema`
prints the JSON Schema of the file for editors. `--set path.to.field=value` changes a field on the command line. The
short form connects agents by strategies (`connect`); the long form writes `consensus`, `flows` and `program`. What is
chosen by name is written `kl`, or `{kl: {temperature: 4}}` with its settings.

## Recipes

Each is a complete file.
"""
IDLE = """\

## Settings that do nothing

A setting that asks for something and can get nothing is refused, at its place, with what to write instead: a
`temperature` of a consensus that combines logits, a `trim` that leaves out none of so few sources, a rule of one
source, a `seed` of an agent whose checkpoint has every weight.

One whose value asks for nothing is accepted, since ablations and sweeps write it (`--set flows.1.weight=0`,
`--over flows.1.weight=0,0.5,1`): a flow of weight 0, noise of deviation 0, `trim: 0`, a consensus that has the mean of
one source. So is one that acts in other runs of the same file: what a host takes of a cluster, `until` with one round,
`text.vocabulary: prefix` where all models have as many outputs, a setting of `train` for which every agent has its own.
Told of as well are a `median` of two sources, which is their mean, `top_k` of all outputs, and a weight that moves for
more epochs than its lessons last, so that it never reaches its `end`. `check` and `run` tell of each in a note, and the
summary of a run of agents that nothing teaches, because every flow to them has weight 0. Gates are told of only where
they can never act. In strategies `labels: 0` draws no flow of labels, as `labels: null` does,
and the weight of teachers is above 0: to ablate a teacher, leave it out, or write the flows.
"""


def mesh_page() -> str:
    """The page about the mesh file: recipes, every field of every part, and the settings of what is built in."""
    text = MESH_HEAD
    for title, mesh in RECIPES.items():
        text += f"\n### {title}\n\n{ABOUT_RECIPES[title]}\n\n```yaml\n{mesh}```\n"
    text += IDLE + (
        "\n## Fields\n\nThe parts of the file, from the outermost. `required` stands where a field has no default.\n"
    )
    for kind, written in SECTIONS.items():
        text += (
            f"\n### {HEADINGS[kind]}\n\n{prose(kind)}\n\n{table(('field', 'type', 'default', ''), field_rows(kind))}"
        )
        text += f"\nAll of its fields, as they are written:\n\n```yaml\n{written}```\n"
    text += "\n## What can be named\n\nBuilt in; `kdmesh plugins` lists what plugins add.\n"
    found = Registry([builtin])
    for kind in IN_FILES:
        text += f"\n### {kind.capitalize()}\n"
        for offer in found.offers(kind):
            paper = f" {offer.paper}." if offer.paper else ""
            text += f"\n#### {offer.name}\n\n{offer.summary[:1].upper()}{offer.summary[1:]}.{paper}\n\n"
            rows = field_rows(offer.config)
            text += table(("setting", "type", "default", ""), rows) if rows else "No settings.\n"
    return text


def field_rows(kind: type[BaseModel]) -> list[tuple[str, ...]]:
    """A row for each field of a model: its name as written, what it takes, its default, what it is."""
    rows = []
    for name, field in fields_of(kind).items():
        limits = [
            f"{sign} {getattr(bound, key):g}" for bound in field.metadata for key, sign in BOUNDS if hasattr(bound, key)
        ]
        words = words_of(field.annotation).replace("allowed: ", "one of ") or "any"
        value = "required" if field.is_required() else f"`{plain(field.get_default(call_default_factory=True))}`"
        rows.append((f"`{name}`", " ".join([words, *limits]), value, field.description or ""))
    return rows


def plain(value: Any) -> str:
    """A default as it is written in a file."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
HEADINGS: dict[type[Strict], str] = {
    MeshSpec: "The file",
    DataSpec: "`data`",
    LicencesSpec: "`licences`",
    PersonalSpec: "`data.personal`",
    CanariesSpec: "`data.canaries`",
    PrepareSpec: "`data.prepare.N`, and `agents.NAME.prepare.N`",
    StreamSpec: "`streams.NAME`",
    MixSpec: "`streams.NAME.mix`",
    SamplingSpec: "`streams.NAME.sampling`",
    ShardSpec: "`streams.NAME.shards`",
    AgentSpec: "`agents.NAME`",
    ViewSpec: "`agents.NAME.view`",
    AnswersSpec: "`agents.NAME.answers`",
    EmaSpec: "`agents.NAME.update.ema`",
    TrainSpec: "`train`, and `agents.NAME.train` for one agent",
    PrivateTraining: "`train.private`, and `agents.NAME.train.private`",
    EarlyStopping: "`train.early_stopping`",
    KeepBest: "`train.keep_best`",
    TextSpec: "`text`",
    ConsensusSpec: "`consensus.NAME`",
    HistorySpec: "`consensus.NAME.history`",
    FlowSpec: "`flows.N`",
    DenominatorSpec: "`flows.N.denominator`",
    Ramp: "`flows.N.weight` that changes",
    TapRef: "`flows.N.tap`",
    ProgramItem: "`program.N`",
    Until: "`program.N.until`",
    HostSpec: "`placement.HOST`",
    PartySpec: "`parties.NAME`",
    ParticipationSpec: "`participation`",
    PrivacySpec: "`parties.NAME.privacy`",
    RetentionSpec: "`keep`",
}
EVENTS_HEAD = f"""\
<!-- Written by `python docs/generate.py` from the code: change that. -->

# The events of a run

A run writes what happens to `events.jsonl` in its folder: one JSON object per line, in UTF-8, flushed at once. With
several seeds or controls each part has its own, and so has the whole. Every line has `event`, the kind, and `t`; the
other fields are those of its kind, below. Numbers that are not finite are `null`. A run that is resumed continues its
file, and `t` begins at 0 again.

The first line that a process writes also has `schema`, the version of this page: {SCHEMA}. It rises when a kind or a
field goes away or changes its meaning. Kinds and fields may be added without that: a reader passes over what it does
not know.

How far a run is, which the log does not have, stands in `progress.json` of the whole while it goes on: `part`, the
latest `part_started`, or null; and `stages`, the latest `progress` of each stage that goes on. It is replaced at most
twice a second, for at most a 200th of the run's time, and goes away with the run's process unless that is killed:
whether a run goes on is told by the lock on its `.lock`. `kdmesh watch` shows both, `kdmesh.report.run_folder` reads a
whole folder.
"""


def events_page() -> str:
    """The page about a run's events: every kind and its fields."""
    text = EVENTS_HEAD + f"\n{table(('every line', 'type', ''), event_rows(Event))}"
    for kind in EVENTS.values():
        rows = [row for row in event_rows(kind) if row[0] != "`t`"]
        about = prose(kind).partition("\nAttributes:")[0].strip()
        text += f"\n## {kind.kind}\n\n{about}\n\n{table(('field', 'type', ''), rows)}"
    return text


def event_rows(kind: type[Event]) -> list[tuple[str, ...]]:
    """A row for each field of an event: its name, its type in JSON, what it is."""
    about: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        listed = textwrap.dedent(prose(base).partition("\nAttributes:\n")[2])
        about |= dict(re.findall(r"^(\w+): (.*(?:\n +.*)*)$", listed, re.MULTILINE))
    return [(f"`{one.name}`", JSON[one.type], re.sub(r"\s+", " ", about[one.name])) for one in fields(kind)]


JSON = {
    "str": "text",
    "str | None": "text or null",
    "int": "integer",
    "int | None": "integer or null",
    "float": "number",
    "float | None": "number or null",
    "bool": "true or false",
    "list[str]": "list of text",
    "list[str] | None": "list of text, or null",
    "Hosts": "object of lists of text",
    "list[StageSize]": "list of objects",
    "Mapping[str, int]": "object of integers",
    "Mapping[str, float | None]": "object of numbers or null",
    "Mapping[str, Mapping[str, float | None]]": "object of objects of numbers or null",
    "dict[str, str | None]": "object of text or null",
    "dict[str, Any]": "object",
}
"""How the type of an event's field is said."""

COOKBOOK = TARGET.parents[2] / "examples" / "cookbook"
COOKBOOK_HEAD = """\
<!-- Written by `python docs/generate.py` from examples/cookbook: change that. -->

# A cookbook of plugins

Twelve complete plugins, each one file with one mesh, in `examples/cookbook`. They import what the
[reference](reference.md) lists and nothing else of kdmesh: copy one and change it.

    kdmesh run examples/cookbook/switokd.yaml --plugins-dir examples/cookbook

A file in a folder of plugins is imported wherever offers are listed or a mesh is planned, so these keep torch out of
their first lines: a class that needs it is made within the factory that the offer names. A package has a module for it
instead, as `kdmesh plugins new` writes it ([tutorial](tutorial.md)).

Tests run each mesh, shortened, inline and on Ray, its agents together and spread over hosts, broken off and resumed,
killed and resumed: the sha256 of all agents' weights are equal. Each plugin also keeps the [contract](testing.md) of
its kind; SwitOKD and co-teaching end with the bits of plain loops in torch.

"""
SHOWN = {  # of each plugin, in the order of the page: what it shows, and the definition that stands on the page
    "switokd": ("a gate that skips an agent's update, and a strategy that draws it", "gap"),
    "co_teaching": ("a gate that weighs rows by another agent's losses", "easy"),
    "curriculum": ("a gate that weighs rows by the confidence of the source", "competence"),
    "fedmd": ("a strategy with private streams, lessons and rounds", "FedMD"),
    "multiplicative_weights": ("a consensus rule with state", "hedge"),
    "qualified_vote": ("a consensus rule that abstains", "qualified"),
    "pate": ("a rule that abstains, draws noise, counts and reports", "gnmax"),
    "contrastive_queue": ("an objective with a memory", "queue"),
    "seed": ("an objective with a memory and a trained adapter", "seed"),
    "simclr": ("a derived agent, and gradients through both ends of a flow", "SimCLR"),
    "sqlite_table": ("a data set, and messages for users", "read"),
    "jsonl_log": ("an observer", "_tell"),
}
MORE_OF = {
    "sqlite_table": (
        "`python examples/cookbook/sqlite_table.py` makes the database of the mesh, from data that come with\n"
        "scikit-learn."
    ),
}


def title(name: str) -> str:
    """What a plugin of the cookbook is called: its docstring up to a colon, or to the end of the first line."""
    return docstring(name).partition("\n")[0].partition(":")[0].rstrip(".")


def docstring(name: str) -> str:
    """What a plugin of the cookbook says of itself."""
    return ast.get_docstring(ast.parse((COOKBOOK / f"{name}.py").read_text(encoding="utf-8"))) or ""


def cookbook() -> str:
    """The page of the cookbook: what each plugin says of itself, its mesh, and the definition that matters."""
    rows = [(f"[{title(name)}](#{title(name).lower().replace(' ', '-')})", shows) for name, (shows, _) in SHOWN.items()]
    text = COOKBOOK_HEAD + table(("plugin", "what it shows"), rows)
    for name, (_, shown) in SHOWN.items():
        source = (COOKBOOK / f"{name}.py").read_text(encoding="utf-8")
        (found,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == shown)
        first = min([found.lineno, *(line.lineno for line in found.decorator_list)]) - 1
        code = "\n".join(source.splitlines()[first : found.end_lineno])
        mesh = (COOKBOOK / f"{name}.yaml").read_text(encoding="utf-8")
        head, _, rest = docstring(name).partition("\n\n")
        about = "\n\n".join(filter(None, (head, rest, MORE_OF.get(name))))
        files = f"[{name}.py](../../examples/cookbook/{name}.py), [{name}.yaml](../../examples/cookbook/{name}.yaml)"
        text += f"\n## {title(name)}\n\n{about}\n\n{files}\n\n```yaml\n{mesh}```\n\n```python\n{code}\n```\n"
    return text


PAGES = {
    TARGET: reference,
    TARGET.parent / "cookbook.md": cookbook,
    TARGET.parents[1] / "mesh-file.md": mesh_page,
    TARGET.parents[1] / "events.md": events_page,
}
"""Every written page, and who writes it."""


if __name__ == "__main__":
    for page, write in PAGES.items():
        page.write_text(write(), encoding="utf-8")
