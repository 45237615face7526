"""The built-in strategies as offers: what each is called, and how it is configured."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from kdmesh.builtin.strategies._common import (
    MEAN,
    Labels,
    LabelsStream,
    Names,
    Objective,
    Period,
    Stream,
    Weight,
    one_or_many,
    softened,
)
from kdmesh.offers import Config, StrategyOffer
from kdmesh.spec import ConsensusSpec, FilterRef, MetricRef, ObjectiveRef, SamplingSpec, TapRef, TextRuleRef
from kdmesh.spec.base import MOST
from kdmesh.spec.flows import Newest

Members = Annotated[list[str], Field(min_length=1)]
Links = Annotated[list[str | Members], BeforeValidator(one_or_many), Field(min_length=1)]
Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


class _OfLabels(Config):
    """What strategies with a weight of labels have in common."""

    @model_validator(mode="after")
    def _some_labels(self) -> Self:
        if getattr(self, "labels", None) is None and getattr(self, "labels_stream", "train") != "train":
            raise ValueError("`labels_stream` has no effect with labels: null: leave it out")
        return self


class EnsembleConfig(_OfLabels):
    """Settings of `ensemble`."""

    teachers: Names = Field(description="one or many agents that teach")
    student: Names | None = Field(None, description="one or many agents that learn")
    students: Names | None = Field(None, description="the same as `student`")
    consensus: ConsensusSpec = Field(
        MEAN, description="how several teachers are combined: a rule, or {rule, space ...}"
    )
    objective: Objective = softened(4)
    tap: TapRef | Annotated[list[TapRef], Field(min_length=1)] | None = Field(
        None, description="layers to compare, for objectives that read hidden layers; a list is a flow for each"
    )
    labels: Labels = 0.5
    weight: Weight | None = Field(None, description="weight of the teachers' loss; by default 1 - labels")
    stream: Stream = "train"
    labels_stream: LabelsStream = "train"
    refresh: Period | None = Field(
        None, description="how often the teachers publish; by default once they have learned"
    )


class ChainConfig(_OfLabels):
    """Settings of `chain`."""

    agents: Links = Field(description="links, first to last; a list is a group")
    consensus: ConsensusSpec = Field(MEAN, description="how a group's members are combined when they teach")
    objective: Objective = softened(4)
    labels: Labels = 0.5
    weight: Weight | None = Field(None, description="weight of one teaching link's loss; by default 1 - labels")
    stream: Stream = "train"
    labels_stream: LabelsStream = "train"
    dense: bool = Field(
        False, description="every earlier link teaches, not only the one before; of three links or more"
    )
    generations: int | None = Field(None, ge=2, le=100, description="times that the last link trains, anew each time")


class MutualConfig(_OfLabels):
    """Settings of `mutual`."""

    peers: Names = Field(description="agents that teach each other")
    graph: Literal["all", "ring"] | list[Pair] = Field("all", description="who teaches whom; pairs are [from, to]")
    order: Literal["simultaneous", "sequential"] = Field(
        "simultaneous", description="sequential: a peer sees those before it as they are after their update"
    )
    consensus: ConsensusSpec | None = Field(
        None, description="peers learn from a consensus of the others, not in pairs"
    )
    objective: Objective = ObjectiveRef(name="kl")
    labels: Labels = 1.0
    weight: Weight = Field(1.0, description="weight of the peers' loss, divided among a peer's teachers")
    stream: Stream = "train"
    labels_stream: LabelsStream = "train"
    refresh: str = Field("step", pattern=r"^(step|epoch|[1-9]\d* steps)$", description="how often peers publish")
    stale: Literal["publish", "snapshot", "recorded"] | None = Field(
        None, description="what a longer period reads: a full pass (default), old weights live, or values as trained"
    )


class SelfConfig(_OfLabels):
    """Settings of `self`."""

    student: Names | None = Field(None, description="one or many agents, each of which teaches itself")
    students: Names | None = Field(None, description="the same as `student`")
    teacher: Literal["ema", "epoch", "batch"] = Field(
        "ema", description="the average of its weights, its outputs an epoch ago, or those on the last batch"
    )
    decay: float | None = Field(None, ge=0, lt=1, description="ema: share of the average kept at an update; 0.99")
    stale: Literal["recorded", "snapshot", "publish"] | None = Field(
        None, description="epoch: values as trained (default), old weights live, or a full pass"
    )
    objective: Objective = ObjectiveRef(name="kl")
    labels: Labels = 1.0
    weight: Weight = Field(1.0, description="weight of the loss against its own past, or {start, end, epochs}")
    stream: Stream = "train"
    labels_stream: LabelsStream = "train"


class RoundsConfig(_OfLabels):
    """Settings of `rounds`."""

    teachers: Names | None = Field(
        None, description="none, one or many agents that learn first and teach in each round"
    )
    student: Names | None = Field(None, description="one or many agents that refine in rounds")
    students: Names | None = Field(None, description="the same as `student`")
    consensus: ConsensusSpec = Field(MEAN, description="how all are combined: a rule, or {rule, space ...}")
    include_self: bool = Field(
        True, description="false: a student's own signal is left out of the consensus it digests"
    )
    objective: Objective = softened(4)
    labels: Labels = 1.0
    weight: Weight = Field(1.0, description="weight of the consensus in the lesson `digest`")
    stream: Stream = "transfer"
    labels_stream: LabelsStream = "train"
    rounds: int = Field(10, ge=1, le=MOST, description="number of rounds")
    local_epochs: int = Field(1, ge=1, le=MOST, description="epochs of the lesson `own` in a round")
    digest_epochs: int = Field(1, ge=1, le=MOST, description="epochs of the lesson `digest` in a round")
    agreement: float | None = Field(None, ge=0, le=1, description="stop once the sources agree this much")
    patience: int | None = Field(None, ge=1, le=MOST, description="stop after so many rounds without better agreement")

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if self.include_self and "include_self" in self.model_fields_set and not self.consensus.include_self:
            raise ValueError("`include_self` is true here and false in `consensus`: leave one of them out")
        if self.labels is None and self.local_epochs != type(self).model_fields["local_epochs"].default:
            raise ValueError("`local_epochs` has no effect with labels: null: leave it out")
        return self


class DebateConfig(_OfLabels):
    """Settings of `debate`."""

    debaters: Names = Field(description="agents that debate, two or more")
    student: Names | None = Field(None, description="one or many agents that learn what it comes to")
    students: Names | None = Field(None, description="the same as `student`; debaters may be among them")
    rounds: int = Field(1, ge=0, le=20, description="how often each reads the others and answers anew; 0: a vote alone")
    rule: TextRuleRef | None = Field(None, description="a rule over texts, by which the debate closes; by default vote")
    teach: Literal["winner", "transcript", "pairs"] = Field(
        "winner",
        description="what is learned: the winner, which the rule chose; the transcript, all that was said with the "
        "winner last; or pairs, one text over another",
    )
    pairs: TextRuleRef | None = Field(
        None, description="teach pairs: a rule that says which of all that was said is chosen, and which rejected"
    )
    reference: str | None = Field(
        None, description="teach pairs: the agent with which `objective` compares students, DPO's reference say"
    )
    template: str = Field(
        "{{ prompt }}\nOthers answered:\n{{ others }}\nAnswer again.\n",
        description="what a debater is asked in a later round; may name `{{ own.text }}`, its own last answer",
    )
    between: str = Field("\n", description="stands between two answers: of others, and of all in the transcript")
    practice: str | None = Field(
        None,
        description="template with made-up answers of others, as later rounds have: debaters that learn read it too",
    )
    roles: dict[str, str] | None = Field(None, description="by debater, a text that stands before all it is asked")
    sampling: SamplingSpec = Field(SamplingSpec(), description="how texts are written")
    keep: list[FilterRef] | None = Field(None, description="filters of what is learned")
    refresh: str | None = Field(
        None, description="how often they debate anew: once, or epoch where debaters learn from it; or as of a stream"
    )
    history: Literal["last", "all"] | Newest | None = Field(
        None, description="keep in the store, by round, what is learned and who said what: last, all, or {k: 3}"
    )
    objective: ObjectiveRef | None = Field(None, description="by what texts are learned; by default as labels are")
    weight: Weight = Field(1.0, description="weight of what the debate comes to")
    labels: Labels | None = Field(None, description="weight of the data's own answers")
    stream: Stream = Field("train", description="the stream whose prompts they answer")
    labels_stream: LabelsStream = "train"


class StarConfig(_OfLabels):
    """Settings of `star`."""

    student: Names = Field(description="the agent that explains to itself")
    rounds: int = Field(1, ge=1, le=20, description="how often it writes, and its base learns what was right")
    metric: MetricRef = Field(MetricRef(name="numeric_answer"), description="a metric of texts: what is right")
    least: float = Field(1.0, description="least value of a text that is learned")
    hint: str | None = Field(
        None, description="template of what it is asked, with the solution, where its own answer is wrong"
    )
    sampling: SamplingSpec = Field(SamplingSpec(), description="how texts are written")
    objective: ObjectiveRef | None = Field(None, description="by what texts are learned; by default as labels are")
    weight: Weight = Field(1.0, description="weight of its own texts")
    labels: Labels = Field(1.0, description="weight of the given answers")
    stream: Stream = Field("train", description="the stream whose prompts it answers")
    labels_stream: LabelsStream = Field("train", description="the stream of given explanations")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.hint is None and self.sampling.samples == 1:
            raise ValueError(
                "with one text of a prompt there is nothing to choose from: a `hint`, or several `samples`"
            )
        return self


ROOM = "kdmesh.builtin.strategies"
STRATEGIES = [
    StrategyOffer(
        "ensemble",
        f"{ROOM}.ensemble:Ensemble",
        EnsembleConfig,
        "one or many teachers teach students through a consensus",
        "Hinton et al., Distilling the Knowledge in a Neural Network, 2015",
    ),
    StrategyOffer(
        "chain",
        f"{ROOM}.chain:Chain",
        ChainConfig,
        "from large to small by assistants, densely, or from generation to generation",
        "Mirzadeh et al., Improved Knowledge Distillation via Teacher Assistant, 2020",
    ),
    StrategyOffer(
        "mutual",
        f"{ROOM}.mutual:Mutual",
        MutualConfig,
        "peers teach each other while they train: all, in a ring, one by one, or stale",
        "Zhang et al., Deep Mutual Learning, 2018",
    ),
    StrategyOffer(
        "self",
        f"{ROOM}.self_distillation:SelfDistillation",
        SelfConfig,
        "a model learns from its own average, last epoch or last batch",
        "Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, 2021",
    ),
    StrategyOffer(
        "debate",
        f"{ROOM}.debate:Debate",
        DebateConfig,
        "agents answer, read each other and answer again; students learn what a vote chooses",
        "Du et al., Improving Factuality and Reasoning in Language Models through Multiagent Debate, 2023",
    ),
    StrategyOffer(
        "star",
        f"{ROOM}.star:Star",
        StarConfig,
        "a model learns its own explanations that end right, from its base in each round",
        "Zelikman et al., STaR: Bootstrapping Reasoning With Reasoning, 2022",
    ),
    StrategyOffer(
        "rounds",
        f"{ROOM}.rounds:Rounds",
        RoundsConfig,
        "students refine in rounds: own labels, publish, digest the consensus of all",
        "Li and Wang, FedMD: Heterogenous Federated Learning via Model Distillation, 2019",
    ),
]
