"""What a plugin offers: lazy, typed descriptions. Reading one imports neither torch nor the offered code.

An offer is keyed by (kind, name). ``factory`` is an import string, ``module:attribute``, resolved only where the thing
is used (in a worker, for models, objectives and rules). ``config`` is a pydantic model that forbids unknown keys; the
factory is called with its fields as keyword arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

API = 1
PROBABILITIES = ("probs", "marginals")
"""Spaces and forms of probabilities: of classes, which sum to 1, and of labels, each on its own."""


LABELS = ("classes", "values", "relevance", "indicators")
NOW = ("step", "epoch", "round")
"""Facts that are plain numbers, and say how far the training is."""
OF_TEXTS = ("text", "group", "reward", "written")
"""Facts about the texts that an agent wrote: which one a token is of, which prompt it answers, how right it is, and how
likely its writer found the token."""
MEASURED = ("measured_step", "measured_epoch", "measured_age")
"""Facts that say when an agent was last measured on validation: plain numbers, None before."""
AGE = "age"
"""In how many rounds in a row the party of each source of a consensus was away: a tuple of whole numbers."""
SPACES = ("probs", "marginals", "logits", "loss", "gradient")
KNOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "objectives": {
        "reads": ("logits", "hidden"),
        "forms": ("logits", *PROBABILITIES, "labels", "hidden"),
        "needs": ("labels", "ids", "spans", "tokens", "pairs", *NOW, *OF_TEXTS),
        "labels": LABELS,
    },
    "consensus": {"spaces": (*SPACES, "weights"), "answers": LABELS, "needs": ("ids", AGE, *NOW)},
    "gates": {
        "needs": (
            *("own", "other", "signal", "confidence", "losses", "counted", "labels", "ids"),
            *(*NOW, "metrics", *MEASURED, "agreement"),
        ),
        "answers": LABELS,
    },
    "signals": {"reads": ("logits", "hidden"), "form": ("logits", *PROBABILITIES, "hidden")},
    "tasks": {
        "data": ("numbers", "texts"),
        "rows": ("samples", "units"),
        "labels": LABELS,
        "source": ("table", "spans", "tokens"),
        "outputs": ("labels", "vocabulary"),
        "head": ("", "sequence", "token", "causal", "candidates"),
        "spaces": SPACES,
    },
    "metrics": {"labels": LABELS, "needs": ("characters", "classes", "texts", "given", "pairs")},
    "filters": {"needs": ("loss", "answers", "reward")},
    "text_rules": {"needs": ("score",), "pairs": ("", "too", "only")},
    "prunings": {"takes": ("units", "weights")},
}
"""What a trait of an offer may name, by kind."""


class Config(BaseModel):
    """Base of every offered configuration: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # most are never asked for

    def named_sources(self) -> dict[str, str]:
        """Sources that these settings of a consensus rule mention, by the setting: each must flow into the node."""
        return {}

    def idle(self) -> dict[str, str]:
        """Settings whose values ask for nothing, as a weight of 0 does, each with what that comes to: users are told.

        They are accepted, since ablations and sweeps write them: ``{"std": "no noise is added"}``.
        """
        return {}

    def unused(self, sources: int) -> dict[str, str]:
        """Settings of a consensus rule that do nothing with so many sources, each with what to write instead.

        They are refused, and told of where a default is meant: ``{"trim": "trim: 0.34, which leaves out one"}``.
        """
        return {}

    def same_as(self, sources: int) -> str:
        """What a consensus rule is with so many sources, where that is a plainer one, as `mean`; users are told."""
        return ""

    def whole(self, outputs: int) -> dict[str, str]:
        """Settings of a signal that leave nothing out of so many outputs, each with what that comes to: users are told.

        ``{"k": "all of them cross, with their places beside"}``.
        """
        return {}

    def unpaired(self) -> dict[str, str]:
        """Settings of a rule over texts that do nothing where it makes pairs, each with what to write instead.

        They are refused: ``{"ties": "leave it out"}``.
        """
        return {}

    def only_compared(self) -> str:
        """Of a signal, why an objective may compare it, and nothing else may read it; "" where anything may."""
        return ""


@dataclass(frozen=True)
class Offer:
    """Name, where the code is, how it is configured, one line about it, and its paper."""

    name: str
    factory: str
    config: type[BaseModel] = Config
    summary: str = ""
    paper: str = ""
    api: int = API
    kind: ClassVar[str] = "offer"

    def load(self) -> Any:
        """Import and return the factory itself."""
        module, _, attribute = self.factory.partition(":")
        return getattr(import_module(module), attribute)

    def make(self, config: dict[str, Any] | None = None, *args: Any, **more: Any) -> Any:
        """Build the thing from a configuration that was already checked."""
        fields = self.config.model_validate(config or {})
        return self.load()(*args, **{name: getattr(fields, name) for name in type(fields).model_fields}, **more)


@dataclass(frozen=True)
class StrategyOffer(Offer):
    """Draws consensus nodes and flows between the agents it is given."""

    kind: ClassVar[str] = "strategies"


@dataclass(frozen=True)
class ObjectiveOffer(Offer):
    """A loss. ``reads``: the signal it compares; ``forms``: which target forms it accepts.

    ``labels``: with form `labels`, or where it ``needs`` them, the kinds that it reads: `classes`, ``[B]`` int64,
    `values`, ``[B, T]`` float32, `relevance`, ``[B, L]`` float32, or `indicators`, ``[B, K]`` int64 of 0 and 1.

    ``forms``: beside `labels`, `hidden` and `logits`, `probs` (a distribution over classes, ``softmax(z / T)``) and
    `marginals` (a probability for each label, ``sigmoid(z / T)``). ``forms_of``: settings that not every form reads,
    and those that do; on a flow that carries another such a setting is refused.

    ``needs``: what else of the batch it is called with, as keywords of these names: ``labels`` (refused on
    unlabelled streams), ``ids [B]`` (int64, the samples' stable ids, for a memory of its own). Between agents that read
    texts each in their own tokens, ``spans``: then ``spans [N, 3]`` and ``source_spans [M, 3]`` say what the N rows of
    the student and the M of the target are about (sample in the batch, first character, character after the last), and
    `labels` come for both, ``labels [N]`` and ``source_labels [M]``; ``tokens``: ``setup`` gets both vocabularies as
    text, ``tokens`` and ``source_tokens``, ``list[str]``. ``pairs``: it compares the two answers of each sample of a
    stream with `pairs: true`; then ``pairs [N, 3]`` int64 says of each of the N rows which sample of the batch it is
    about, which answer, 0 the chosen or 1 the rejected one, and the token that stands there, also where the stream's
    labels are hidden; whoever reads which is the chosen one needs `labels` as well. Its loss is a mean over pairs.
    Plain numbers: ``step``, the batches of this lesson before this one, over all rounds; ``epoch``, of the lesson, from
    0; ``round``, from 1, refused outside rounds.

    Of texts that an agent writes, row by row (a row is a token): ``text [N]`` int64, which of the batch's texts it is
    of, from 0, in their order; ``group [N]`` int64, the id of the prompt's sample: equal ones are answers to the same
    prompt, and a batch has all of them that are kept; ``reward [N]`` float32, how right the whole text is, by the
    stream's `reward`; ``written [N]`` float32, the log-probability of the token by who wrote it, when it did, at the
    temperature at which it was drawn. ``needs_of``: settings that need more where they are not null, and what.

    ``aligned=False``: its target is a statistic of a stream, ``[K, D]`` (see :class:`SignalOffer`), and not a row for
    each of the student's; ``weights [K]`` are then 0 for rows that nobody knows.

    ``linear``: its gradient at the student is linear in a target of form `probs`, as that of a forward KL is: so it is
    right on average of a target that is. (A part of the loss that no student changes may be another.) ``rowwise``: it
    compares outcomes row by row, so that a column may stand for another outcome in each row, as in top-k logits whose
    tail is not spread; one that is told labels, or looks at a column over the batch, does not.

    ``reduction``: how the loss is averaged, in words for `plan`: `batchmean` (summed over classes, averaged over
    samples), `mean over elements`, or others; "": nothing is said of it. A setting ``per_element: true`` makes
    `mean over elements` of it.
    """

    kind: ClassVar[str] = "objectives"
    reads: str = "logits"  # logits | hidden
    forms: tuple[str, ...] = ("logits", "probs")  # of: logits, probs, marginals, labels, hidden
    tempered: bool = False  # has a `temperature` that its target must share
    needs: tuple[str, ...] = ()  # of: labels, ids, spans, tokens, pairs, step ... round, text, group, reward, written
    needs_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    labels: tuple[str, ...] = ("classes",)  # of: classes, values, relevance, indicators
    forms_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    reduction: str = ""  # what `plan` says of it
    aligned: bool = True
    linear: bool = False
    rowwise: bool = False

    def needed(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """What it needs with these settings."""
        given = {name: config.get(name, self.config.model_fields[name].default) for name in self.needs_of}
        more = [need for name, needs in self.needs_of.items() if given[name] is not None for need in needs]
        return (*self.needs, *(need for need in dict.fromkeys(more) if need not in self.needs))


@dataclass(frozen=True)
class ConsensusOffer(Offer):
    """A rule that combines several signals into one.

    ``answers``: the kinds of answers that it can combine, scores of `classes`, plain `values`, scores of `relevance`
    (those of candidates that there are not are ``-inf``) or of `indicators`. ``spaces``: in which it combines;
    `marginals` are probabilities of labels, each on its own, `weights` no answers but the weights of agents, a row
    each. ``needs_labels``: it is given the labels of the batch;
    ``stateful``, ``trained``: it has buffers, or weights, that change, so that one host owns it. ``partial``: its
    sources may know different classes; a class that a source does not know has the logit ``-inf``. ``needs_column``:
    the setting that names a column of the data; ``setup`` then gets ``columns``, the column's different values as text,
    and each call ``column [B]``, int64, their numbers (-1: none). ``needs_errors``: each call gets ``errors [M, T]``,
    float64, the mean squared error of each source's answers on `validation`, by value, or, of classes, of their
    probabilities at temperature 1, by class, as it was when the source last published; infinite for one that has not.
    Its sources are agents, and they publish.
    ``needs``: what else each call gets, as keywords of these names: ``ids [B]``, int64, the stable id of each row's
    sample; ``step``, ``epoch``, ``round``, plain numbers (see :class:`ObjectiveOffer`) that say how far its reader's
    training is: in each step where a source answers live, else as it is formed on the whole stream; while it is
    measured, as it last taught; ``age``, a tuple of M whole numbers: in how many rounds in a row, this one too, the
    party of each source was away, in a mesh with `participation` that keeps last answers. ``abstains``: it may return
    ``(values, answered)``, with ``answered [B]`` bool, who was answered; not in spaces `loss` and `gradient`.
    ``neutral``: of one source it gives what that source says, so that a mesh in which it has one only is refused.
    """

    kind: ClassVar[str] = "consensus"
    needs_labels: bool = False
    stateful: bool = False
    trained: bool = False
    spaces: tuple[str, ...] = ("probs", "logits")  # of: probs, marginals, logits, loss, gradient, weights
    inputs: bool = False  # is informed by flows `as: input`, whose signals it does not combine
    partial: bool = False
    needs_column: str = ""
    answers: tuple[str, ...] = ("classes",)  # of: classes, values, relevance, indicators
    needs_errors: bool = False
    needs: tuple[str, ...] = ()  # of: ids, age, step, epoch, round
    abstains: bool = False
    neutral: bool = False
    releases: str = ""


@dataclass(frozen=True)
class GateOffer(Offer):
    """Says in each step whether a flow adds its loss, an agent is updated, or it writes a batch: ``factory(**config)``
    gives a :class:`kdmesh.gates.Gate`.

    ``needs``: what it is called with, as keywords of these names. Of the step's batch, without gradient: ``own [B,
    C]``, the agent's logits; ``other [B, C]``, those of the agent that the mesh names with `of`; ``signal``, what
    the flow carries; ``confidence [B]``, the largest probability in each row of that; ``losses [B]``, the flow's
    objective for each row, of the own signal, or of the logits of the agent that `of` names; ``counted [B]``
    (bool), whether the flow compares the row: of one that it does not, the loss is 0; ``labels``, ``ids [B]``. Of
    the training: ``step``, ``epoch``, ``round``, plain numbers (see :class:`ObjectiveOffer`); ``metrics``, the
    agent's figures on validation as last measured, by name, empty before; ``measured_step``, ``measured_epoch``,
    what `step` and `epoch` were in the first step after that, and ``measured_age``, the batches of this lesson since,
    0 in that step: None before; ``agreement``, that of the sources of the consensus that the agent sends to or reads,
    of several the one published to last in the rounds, None before.
    ``signal``, ``confidence``, ``losses`` and ``counted`` are of a flow.

    ``rows``: it gives factors ``[B]`` in place of a bool, so that it stands on flows alone. ``answers``: the kinds of
    answers that it can judge (see :class:`ConsensusOffer`).
    """

    kind: ClassVar[str] = "gates"
    needs: tuple[str, ...] = ()
    rows: bool = False
    answers: tuple[str, ...] = ("classes", "values", "relevance", "indicators")


@dataclass(frozen=True)
class FilterOffer(Offer):
    """Says which of the texts that an agent wrote are learned: ``factory(**config)`` gives a
    :class:`kdmesh.filters.Filter`.

    ``needs``: `loss`, the mean loss of each text by the agent that the mesh names with `of`, by default the writer;
    `answers`, the class that each of the agents gives it which the mesh names with `of`, where texts are classified; or
    `reward`, how right it is by the verifiers of the stream's `reward`.
    ``several``: it compares the texts of one prompt, which are then written together, several of each.
    """

    kind: ClassVar[str] = "filters"
    needs: tuple[str, ...] = ()
    several: bool = False


@dataclass(frozen=True)
class TextRuleOffer(Offer):
    """Makes one of several texts that answer a prompt: ``factory(**config)`` gives a
    :class:`kdmesh.filters.TextRule`.

    ``needs``: `score`, what the metric says of each text that its setting ``metric`` names, more being better.
    ``reads``: it looks at further texts, those of the stream's `reads`; without, a mesh that has such is refused.
    ``pairs``: it may also say which text is `rejected` in favour of the one that it chooses, and so makes pairs on a
    stream with `pairs: true`; `only`: that is all it is for, and a stream without is refused.
    """

    kind: ClassVar[str] = "text_rules"
    needs: tuple[str, ...] = ()
    reads: bool = False
    pairs: str = ""  # of: too, only


@dataclass(frozen=True)
class PruningOffer(Offer):
    """Says what is taken out of an agent's weights before it trains: ``factory(**config)`` gives a
    :class:`kdmesh.prunings.Pruning`.

    ``takes``: `units`, of a network of transformers, which becomes a smaller one; or single `weights`, which become 0
    and stay it while the rest trains.
    """

    kind: ClassVar[str] = "prunings"
    takes: str = "units"  # of: units, weights


@dataclass(frozen=True)
class RecogniserOffer(Offer):
    """Finds personal data in texts: ``factory(**config)`` gives a :class:`kdmesh.recognisers.Recogniser`.

    ``finds``: the kinds of what it finds, as far as they are known before its settings are: ``("EMAIL",)``.
    """

    kind: ClassVar[str] = "recognisers"
    finds: tuple[str, ...] = ()


@dataclass(frozen=True)
class SignalOffer(Offer):
    """A kind of signal, made where its agent lives: ``factory(**config)`` gives ``make(value [B, ...]) -> [B, ...]``.

    ``reads``: what it is made of, ``logits`` or ``hidden`` (the layer that the flow's `tap` names); ``form``: what its
    reader sees. ``lazy``: it takes logits that are not made yet as well, and may give such; no gradient passes it.
    ``codec``: an import string of the class that it gives, a :class:`kdmesh.signals.lazy.Lazy` with ``pack`` and
    ``restore``: between hosts and in checkpoints it then is what ``pack`` names. Without one it is made whole there.

    ``needs``: what else ``make`` is given, as keywords of these names: ``x [B, ...]``, a copy of the samples as the
    module saw them; ``module``, in the mode in which it answered (buffers that a further forward moves are put back;
    to change weights or their gradients, or to leave a part in another mode, is an error); ``taps``, a copy of the
    output of each layer that the agent's `taps` name, by these names; ``generator``, a ``torch.Generator`` on the
    value's device, seeded by mesh, agent and step. ``gradient``: ``x`` requires gradients, and these are in force while
    the signal is made; needs ``x`` and ``module``, called on ``x`` once more (the value was made before, so that
    no gradient reaches ``x`` from it). What a source sends is detached as any signal.

    Draws, from ``generator`` or a default one, belong to the batch of a step. So a signal may draw only where its
    source answers in train mode and in the step itself (it trains there, or the flow says `mode: train`). In eval mode
    (a frozen source, what is published, a source of a consensus) an answer depends on its sample alone, stored or live,
    resumed or not: there it is an error to draw.

    ``aligned=False``: it is a statistic of a whole stream, whose rows are of no samples (a mean for each class, say).
    It is made each time its source publishes: ``make(value [N, ...], **needs) -> [K, D]``, of all samples that the
    source sees of the stream, or ``([K, D], known [K] bool)`` where it may know nothing of some rows. K and D are the
    same for all sources, whose samples may differ: shards, or other streams. ``needs`` may then be ``labels [N]`` and
    ``classes``, their number. An objective reads it whose offer says `aligned=False`; a consensus combines such alone,
    in space `logits`, as they are.

    ``estimate``: its values are right on average alone, as those that are drawn: objectives whose offer is not `linear`
    are refused, since they would be wrong on average, and so is whatever else would read it, as a consensus.

    ``sparse``: it names some outputs of each row, and is kept in a form of its own, `packed`.

    ``needs=("asked",)``: ``make(logits [N, C], asked=...)`` is given what the reader, an agent, asks in this step: what
    ``make.ask(logits [N, C])`` makes, at the reader's host, of its own detached logits of the same rows, a tensor of N
    rows; without a method ``ask`` these logits. It is made of logits alone, after both have answered, with
    `refresh: step`, and no gradient passes. Logits of both are of the outputs that both have.

    ``both``: the reader, an agent, makes the same signal of its own forward,
    with gradients to its weights (``torch.autograd.grad(..., create_graph=True)``), and the objective compares the two.
    """

    kind: ClassVar[str] = "signals"
    reads: str = "logits"  # logits | hidden
    form: str = "probs"  # logits | probs | hidden
    lazy: bool = False
    codec: str = ""
    needs: tuple[str, ...] = ()  # of: x, module, taps, generator, or asked; not aligned: labels, classes
    gradient: bool = False
    both: bool = False
    aligned: bool = True
    estimate: bool = False
    sparse: bool = False


@dataclass(frozen=True)
class ModelOffer(Offer):
    """A module built as ``factory(input_shape=..., classes=..., **config)``; ``gives`` names its signals.

    ``encoder``: for models of texts, an import string of ``make(config, task=..., text=..., tags=..., agent=...,
    files=..., texts=...)``, which returns a :class:`kdmesh.text.encoder.Encoder`. Such a model is built as
    ``factory(task=..., classes=..., labels=..., vocabulary=..., pad=..., separator=..., **config)``; it reads `Tokens`.
    ``images``: of a model of texts that there is for images too, an import string of ``build(config, task=...,
    input_shape=..., classes=..., labels=...)``, which reads pixels of 0 to 1.
    ``sizes``: for language models, an import string of ``sizes(config) -> (values of a row that its last layer maps,
    how many outputs)``, each None where settings do not tell; it imports no torch, as a plan is drawn without.
    ``learning``: settings that only weights which learn by gradient have a use of; on others they are refused.
    ``lookup``: of a model that has no weights and looks its answers up in the store, an import string of
    ``settle(config, store, labels) -> config``, called before a run: it says in whole what the settings leave open, or
    raises MeshError. ``store``: the run's, "" for none; ``labels``: the agent's. Its module has ``lacking(x,
    measuring) -> [n]`` bool, the samples without an answer, to be measured on or to teach on. Only frozen agents have
    such a model, and what they say is not stored again.
    ``served``: a model that has no weights, since it is behind an endpoint. Only frozen agents have such a one; the
    endpoint is looked at before a run, and its answers are kept in the store.
    ``fixed``: a model of a file that another library made, which passes no gradient and shows no layers. Only frozen
    agents have such a one; its factory also takes ``labels``, the names of the classes, and, of a saved agent,
    ``size``. Its module says in ``saved`` by which settings it is built again, from its state.
    """

    kind: ClassVar[str] = "models"
    gives: tuple[str, ...] = ("logits", "hidden")
    encoder: str = ""
    sizes: str = ""
    learning: tuple[str, ...] = ()
    lookup: str = ""
    served: bool = False
    fixed: bool = False
    images: str = ""


@dataclass(frozen=True)
class DatasetOffer(Offer):
    """Read as ``factory(**config)``, which returns a ``kdmesh.streams.table.Table``.

    ``lookup``: of one that may be in the store, an import string of ``settle(config, store) -> config``, which writes
    out what its settings leave open, so that a run that is resumed reads the same; ``store``: the run's, "" for none.
    ``pool``: it may bring samples without labels, as the official split `transfer`.
    ``cells``: its factory also takes ``cells=True``, where the mesh prepares columns: the table then has ``cells``.
    """

    kind: ClassVar[str] = "datasets"
    lookup: str = ""
    pool: bool = False
    cells: bool = False


@dataclass(frozen=True)
class ViewOffer(Offer):
    """An augmentation: ``factory(seed, **config)`` gives ``view(x [B, ...], ids [B], draw) -> [B, ...]``.

    ``seed``: its own, for each agent and each place in an agent's list. ``x``: samples, which may be changed; what
    comes back has their shape and type. ``ids``: int64, the samples' stable ids; ``draw``: the epoch, or, where the
    agent says `draws: N`, what is left of it by N. A sample is to look the same for the same seed, id and draw,
    whatever its batch is; what is drawn from torch's, numpy's or Python's own generator is seeded by seed and draw, but
    does depend on the batch. One with a true attribute ``of_pixels`` is given images as the data have them where
    `prepare` scales pixels, and what it makes is scaled after it.

    ``mixes``: it mixes the samples of a batch, and gives ``(x [B, ...], partner [B], share)``: row i of x is made of
    samples i and ``partner[i]`` (int64), by ``share`` and ``1 - share``, a float for all rows or ``[B]`` float32.
    Labels, and what agents say that see the samples unmixed, then count by these shares. ``seed``: the same for all
    agents, unless one says `apart`; ``draw``: of the step, and of the stream and lesson, in place of the epoch.
    """

    kind: ClassVar[str] = "views"
    mixes: bool = False


@dataclass(frozen=True)
class TaskOffer(Offer):
    """What models learn and how they are judged: ``factory(**config)`` gives a :class:`kdmesh.tasks.Task`.

    ``data``: what samples may be, `numbers` and `texts`. ``rows``: what a row of a model's answers is for, `samples`,
    or `units` of these (words, tokens). ``labels``: what a label is, `classes` (int64, ``0 .. C-1``), `values`
    (float32, one or several), `relevance` (float32, of each candidate of a query; below 0 where there is none) or
    `indicators` (int64, 0 or 1, several). ``source``: where labels are read, `table` (the label column or columns of
    the data set, its ``y``), `spans` (of texts) or `tokens` (the texts' own). ``outputs``: how many a row of answers
    has, as many as ``Task.outputs`` says of the `labels`, or as many as the model's own `vocabulary`. ``head``: the
    kind of model of transformers, `sequence` (an answer for a text), `token` (for a word), `causal` (the next token) or
    `candidates` (a score for each of a query's candidates); "": none.

    ``objective``: the loss of labels where a flow names none; those settings of the task that this loss has too are its
    settings. ``metrics``: what every run reports, in this order; ``primary``: the one of them by which models are
    compared. ``watched``: the first is what early stopping and `keep_best` watch where nothing is named. ``spaces``:
    what a consensus may combine, of `probs` (of classes), `marginals` (probabilities of labels, each on its own),
    `logits` (answers as they are), `loss` and `gradient`; objectives that compare the first or the second need it here.
    ``decides``: answers are discrete, so that agreement of sources, churn and `until` are defined.
    """

    kind: ClassVar[str] = "tasks"
    data: tuple[str, ...] = ("numbers",)
    rows: str = "samples"  # samples | units
    labels: str = "classes"  # classes | values | relevance | indicators
    source: str = "table"  # table | spans | tokens
    outputs: str = "labels"  # labels | vocabulary
    head: str = ""  # sequence | token | causal | candidates
    objective: str = "ce"
    metrics: tuple[str, ...] = ("accuracy", "loss", "ece")
    primary: str = "accuracy"
    watched: tuple[str, ...] = ("loss", "accuracy")
    spaces: tuple[str, ...] = ("probs", "logits", "loss", "gradient")
    decides: bool = True


@dataclass(frozen=True)
class SamplerOffer(Offer):
    """Proposes the points of a sweep: ``factory(axes=..., count=..., seed=..., higher=..., folder=..., **config)``
    gives a :class:`kdmesh.samplers.Sampler`.

    ``adaptive``: it learns from what it is told, so that it is asked for a few points at a time.
    """

    kind: ClassVar[str] = "samplers"
    adaptive: bool = False


@dataclass(frozen=True)
class CommandOffer(Offer):
    """A command of the command line: ``factory`` is ``add(commands)``, which adds one parser of the offer's name.

    ``commands`` is what argparse's ``add_subparsers`` gives. As kdmesh's own commands do, ``add`` calls
    ``commands.add_parser(name, ...)`` and, on that, ``set_defaults(execute=...)``: ``execute(args)`` returns the exit
    code, prints its result to stdout, and raises MeshError for what the user can mend. Neither is loaded before the
    command is asked for, and ``add`` imports what is heavy inside ``execute``. A command has no settings but its own
    options: no ``config``.
    """

    kind: ClassVar[str] = "commands"


@dataclass(frozen=True)
class MetricOffer(Offer):
    """A figure of a model's answers on a labelled stream: ``factory(**config)`` gives a :class:`kdmesh.metrics.Metric`.

    ``higher``: whether more is better. ``lowest``, ``highest``: its range, None where it has no bound. ``labels``: the
    kinds of labels (see :class:`TaskOffer`) that it is defined for. ``needs``: `characters` (how many characters the
    answers are about; without, it is left out), `classes` (those of the data, not of a model's vocabulary), `texts`
    (what a language model writes to the prompts of the stream: these are its rows), `given` (beside `texts`: what the
    data answer, so that a mesh is refused that measures it on prompts alone), `pairs` (the two answers to each prompt:
    ``scores [N, 2]`` float64 are the log-probabilities, in nats, of the chosen and the rejected one, less those by the
    agent that the mesh names with `of`, and ``labels [N]`` are 0). ``scalar``: it is one number; what is not
    stands in `results.json` and `summary.json` alone.
    """

    kind: ClassVar[str] = "metrics"
    higher: bool = True
    lowest: float | None = None
    highest: float | None = None
    labels: tuple[str, ...] = ("classes",)
    needs: tuple[str, ...] = ()  # of: characters, classes, texts, given, pairs
    scalar: bool = True
