"""Right plugins: what they offer, and what their authors say of them in the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kdmesh.offers import (
    ConsensusOffer,
    DatasetOffer,
    FilterOffer,
    GateOffer,
    MetricOffer,
    ModelOffer,
    ObjectiveOffer,
    Offer,
    PruningOffer,
    RecogniserOffer,
    SamplerOffer,
    SignalOffer,
    StrategyOffer,
    TaskOffer,
    TextRuleOffer,
    ViewOffer,
)

from . import configs

HOME = __name__
CONTRACTS = {
    "objectives": "ObjectiveContract",
    "consensus": "ConsensusContract",
    "signals": "SignalContract",
    "views": "ViewContract",
    "metrics": "MetricContract",
    "gates": "GateContract",
    "filters": "FilterContract",
    "text_rules": "TextRuleContract",
    "models": "ModelContract",
    "datasets": "DatasetContract",
    "tasks": "TaskContract",
    "strategies": "StrategyContract",
    "samplers": "SamplerContract",
    "prunings": "PruningContract",
    "recognisers": "RecogniserContract",
}
ROOMS = {kind: "rules" if kind == "consensus" else kind for kind in CONTRACTS}
EQUAL = {"zero_at_equality": True, "permutation_invariant": True}
ANY = {"order_invariant": True}
FILE = "label,x1,x2,city\n" + "".join(f"{name},{n},{n * n % 5},{city}\n" for n, (name, city) in enumerate(
    [("red", "Bern"), ("green", "Rome"), ("blue", "Oslo"), ("gold", "Bern"), ("pink", "Rome"), ("grey", "Oslo")] * 4
))  # fmt: skip


@dataclass(frozen=True)
class Original:
    """A right plugin. ``declares``: class attributes of its test; ``file``: what its setting ``path`` names, if any."""

    offer: Offer
    declares: dict[str, Any] = field(default_factory=dict)
    file: str = ""

    @property
    def thing(self) -> str:
        """The class or function, by its name in its room."""
        return self.offer.factory.partition(":")[2]

    @property
    def room(self) -> str:
        """The module beside this one that it stands in."""
        return ROOMS[self.offer.kind]


def _offer(make: Any, thing: str, config: Any = None, **traits: Any) -> Any:
    more = {"config": config} if config is not None else {}
    return make(thing.lower(), f"{HOME}.{ROOMS[make.kind]}:{thing}", summary="for tests of the kit", **more, **traits)


_ALL = [
    Original(_offer(ObjectiveOffer, "Squares", forms=("logits",)), EQUAL),
    Original(_offer(ObjectiveOffer, "Softened", configs.Temperature, tempered=True), EQUAL),
    Original(_offer(ObjectiveOffer, "Cosine", forms=("logits",)), {"permutation_invariant": True}),
    Original(_offer(ObjectiveOffer, "Adapted", reads="hidden", forms=("hidden",)), {"permutation_invariant": True}),
    Original(_offer(ObjectiveOffer, "Centred", forms=("logits",)), {"permutation_invariant": True}),
    Original(_offer(ObjectiveOffer, "Decoupled", configs.Others, forms=("logits",), needs=("labels",)), EQUAL),
    Original(_offer(ObjectiveOffer, "Relations", forms=("logits",)), {**EQUAL, "doubling": None}),
    Original(_offer(ObjectiveOffer, "Noisy", configs.Std, forms=("logits",)), {"doubling": None}),
    Original(_offer(ObjectiveOffer, "Remembering", forms=("logits",), needs=("ids",)), {"permutation_invariant": True}),
    Original(_offer(ObjectiveOffer, "Vocabularies", forms=("logits",), needs=("spans", "tokens")), EQUAL),
    Original(_offer(ConsensusOffer, "Average", spaces=("probs", "logits", "loss")), ANY),
    Original(_offer(ConsensusOffer, "Certain", configs.Sharpness, spaces=("probs", "logits", "loss")), ANY),
    Original(_offer(ConsensusOffer, "Experts", spaces=("probs", "logits")), ANY),
    Original(_offer(ConsensusOffer, "Surest", spaces=("probs", "logits", "loss")), ANY),
    Original(_offer(ConsensusOffer, "Trusted", spaces=("probs",), stateful=True)),
    Original(_offer(ConsensusOffer, "Learned", spaces=("probs", "logits"), trained=True)),
    Original(_offer(ConsensusOffer, "Skilled", spaces=("probs", "loss"), needs_labels=True), ANY),
    Original(_offer(ConsensusOffer, "Sampled", spaces=("probs", "logits")), {"drawn": True}),
    Original(_offer(ConsensusOffer, "Unanimous", spaces=("probs",), abstains=True), ANY),
    Original(
        _offer(ConsensusOffer, "Preferred", configs.Weights, spaces=("probs", "logits")),
        {"config": {"weights": {"a": 3.0, "c": 0.5}}, **ANY},
    ),
    Original(_offer(SignalOffer, "Flattened", configs.Temperature)),
    Original(_offer(SignalOffer, "Ranks", form="logits")),
    Original(_offer(SignalOffer, "Private", configs.Std), {"drawn": True}),
    Original(_offer(SignalOffer, "Salient", form="hidden", needs=("x", "module"), gradient=True, both=True)),
    Original(
        _offer(SignalOffer, "Pooled", form="hidden", needs=("taps",)),
        {"taps": {"body": (3, 2, 2), "neck": (4, 2, 2), "head": (2, 2, 2), "tail": (5, 2, 2)}},
    ),
    Original(_offer(SignalOffer, "Twice", needs=("x", "module"))),
    Original(_offer(SignalOffer, "Seeded", form="logits", needs=("generator",))),
    Original(_offer(SignalOffer, "Top", configs.K)),
    Original(_offer(ViewOffer, "Brighter", configs.Spread)),
    Original(_offer(ViewOffer, "Rolled")),
    Original(_offer(ViewOffer, "Erased", configs.Share)),
    Original(_offer(ViewOffer, "Normed")),
    Original(_offer(MetricOffer, "TopK", configs.K, lowest=0.0, highest=1.0), {"best": 1.0}),
    Original(_offer(MetricOffer, "Brier", higher=False, lowest=0.0, highest=2.0), {"best": 0.0}),
    Original(_offer(MetricOffer, "Spread", higher=False, lowest=0.0, labels=("values",)), {"best": 0.0}),
    Original(_offer(MetricOffer, "Recalls", lowest=0.0, highest=1.0, scalar=False, needs=("classes",))),
    Original(_offer(MetricOffer, "PerCharacter", higher=False, lowest=0.0, needs=("characters",)), {"best": 0.0}),
    Original(_offer(GateOffer, "Sure", configs.Least, needs=("confidence",), rows=True)),
    Original(_offer(GateOffer, "Usual", configs.Factor, needs=("losses", "counted"))),
    Original(_offer(GateOffer, "Better", needs=("own", "signal", "labels"), rows=True)),
    Original(_offer(GateOffer, "Lucky", configs.Share, needs=("losses",), rows=True), {"drawn": True}),
    Original(_offer(GateOffer, "Seen", configs.Rows, needs=("ids", "losses"), rows=True)),
    Original(_offer(GateOffer, "Late", needs=("metrics", "epoch"))),
    Original(_offer(ModelOffer, "Residual", configs.Width)),
    Original(_offer(ModelOffer, "Dropped", configs.Dropped)),
    Original(_offer(ModelOffer, "Whitened")),
    Original(_offer(ModelOffer, "Patches", configs.Width)),
    Original(_offer(DatasetOffer, "clouds", configs.Clouds)),
    Original(_offer(DatasetOffer, "rows", configs.Path), file=FILE),
    Original(_offer(TaskOffer, "Classes", configs.Enough, metrics=("accuracy", "loss"))),
    Original(_offer(StrategyOffer, "Ring", configs.Ring), {"config": {"agents": ["a", "b", "c"]}}),
    Original(
        _offer(StrategyOffer, "Council", configs.Council), {"config": {"teachers": ["a", "b"], "students": ["c"]}}
    ),
    Original(_offer(SamplerOffer, "Drawn")),
    Original(_offer(PruningOffer, "Smallest", configs.Share, takes="weights"), {"config": {"share": 0.25}}),
    Original(_offer(PruningOffer, "Chance", configs.Share, takes="weights"), {"config": {"share": 0.25}}),
    Original(_offer(PruningOffer, "Shallow")),
    Original(_offer(FilterOffer, "Bounded"), {"keeps": False}),
    Original(_offer(FilterOffer, "First")),
    Original(_offer(FilterOffer, "Likely", needs=("loss",)), {"keeps": False}),
    Original(
        _offer(RecogniserOffer, "Plates", finds=("PLATE",)),
        {"texts": ("BE 12345",), "others": ("ZH 12345", "BE 1234567")},
    ),
    Original(
        _offer(RecogniserOffer, "Badges", finds=("BADGE",)),
        {"texts": ("badge {{12339}}", "badge {{00112}} of hers"), "others": ("badge 12345", "12339 of 12339")},
    ),
    Original(_offer(TextRuleOffer, "Shortest")),
    Original(
        _offer(TextRuleOffer, "Highest", configs.Scored, needs=("score",)), {"config": {"metric": {"exact_match": {}}}}
    ),
]
ORIGINALS = {f"{one.room}.{one.thing}": one for one in _ALL}
