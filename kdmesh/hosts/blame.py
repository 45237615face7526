"""What is said of a step that cannot go on: of a loss that is not finite, and of a backward pass that fails."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

from torch import Tensor

from kdmesh.errors import RunFailed, line_of
from kdmesh.hosts.consensus import refuse_improper
from kdmesh.offers import PROBABILITIES
from kdmesh.signals.lazy import Lazy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.hosts.terms import Term
    from kdmesh.signals import Signal


class BrokenLoss(RunFailed):
    """A loss that is not finite."""


def backward_failed(terms: Sequence[Term], error: RuntimeError, step: int) -> NoReturn:
    """Raise for a backward pass over the losses of some flows, with the plugins that had a part in it."""
    if isinstance(error, RunFailed):
        raise error
    theirs = [word for term in terms for word in _makers(term)]
    target, words = terms[0].edge.target, "; in it: " + ", ".join(dict.fromkeys(theirs)) if theirs else ""
    raise RunFailed(
        f"no gradient at step {step} of what {target} learns: {error}{line_of(error)}{words}",
        where=f"agents.{target}",
        instead="no work in place on what others read, and nothing that keeps its graph from step to step",
    ) from error


def _makers(term: Term) -> list[str]:
    """The plugins that made a flow's loss: its objective, its source's signal or rule, and the models of its ends."""
    edge, host = term.edge, term.inputs.host
    assert edge.objective is not None
    asked = [("objectives", edge.objective.name)]
    if edge.derived is not None:
        asked.append(("signals", edge.derived.name))
    return [one for kind, name in asked if (one := host.registry.theirs(kind, name))] + [
        one for name in (edge.source, edge.target) if (one := _node(term, name))
    ]


def _node(term: Term, name: str) -> str:
    """The plugin of a consensus' rule, or of an agent's model; "" of what is no plugin's."""
    host = term.inputs.host
    if name in host.plan.consensus:
        return host.registry.theirs("consensus", host.plan.consensus[name].rule.name)
    if name not in host.plan.owner or name in host.config.modules:
        return ""
    model = host.plan.spec.agents[host.plan.owner[name]].model
    return "" if model is None or model.is_import else host.registry.theirs("models", model.name)


def _views(term: Term, agent: str) -> list[str]:
    """The plugins of an agent's augmentations, whose numbers are not looked at in every step."""
    host = term.inputs.host
    view = host.plan.spec.agents[agent].view.augment if agent in host.plan.spec.agents else []
    return [host.registry.theirs("views", one.name) for one in view]


def culprit(term: Term) -> str:
    """The plugin that made what a loss broke by, "" where it was none: by what is not finite, or no distribution."""
    if term.seen is None:
        return ""
    (own, signal), edge, registry = term.seen, term.edge, term.inputs.host.registry
    assert edge.objective is not None
    if not _finite(own):
        mirrored = edge.mirrored and edge.derived is not None
        if mirrored and edge.derived:
            return registry.theirs("signals", edge.derived.name)
        return " or ".join(filter(None, (_node(term, edge.target), *_views(term, edge.target))))
    if signal.weights is not None and not _finite(signal.weights):
        return _node(term, edge.source)
    if signal.form != "labels" and not _proper(signal):
        return registry.theirs("signals", edge.derived.name) if edge.derived else _node(term, edge.source)
    return registry.theirs("objectives", edge.objective.name)


def _spoilers(term: Term, terms: Sequence[Term]) -> str:
    """The plugins whose gradients may have made weights what is not finite any more: a loss may be finite all the same.

    As that of a root at 0. "" where the agent's answers are finite.
    """
    if term.seen is None or _finite(term.seen[0]):
        return ""
    here = [one for one in terms if one.edge.target == term.edge.target and one.edge.objective is not None]
    theirs = [
        term.inputs.host.registry.theirs("objectives", one.edge.objective.name) for one in here if one.edge.objective
    ]
    words = ", ".join(dict.fromkeys(filter(None, theirs)))
    return f"gradients before it, perhaps of {words}" if words else ""


def _finite(value: Tensor | Lazy) -> bool:
    """Whether some first rows are finite, but for -inf, which rules a class out."""
    rows = value.detach().rows(0, min(len(value), 256)) if isinstance(value, Lazy) else value.detach()
    return not bool(rows.isnan().any()) and not bool(rows.isposinf().any())


def _proper(signal: Signal) -> bool:
    """Whether a signal is what its form says, in rows that count."""
    value = signal.value
    if not isinstance(value, Tensor):
        return _finite(value)
    if signal.form not in PROBABILITIES:
        return _finite(value if signal.weights is None else value[signal.weights != 0])
    try:
        refuse_improper(value, value.shape, signal.form, signal.weights)
    except ValueError:
        return False
    return True


def refuse_broken(losses: list[tuple[Term, Tensor]], step: int) -> None:
    """Raise for the first loss that is not finite, with the ranges of what it compared."""
    for term, loss in losses:
        value = float(loss.detach())
        if math.isfinite(value):
            continue
        ranges, instead = "", "a smaller learning rate, `clip`, or another temperature; the last checkpoint is kept"
        if term.seen is not None:
            own, signal = term.seen
            if ruled_out := _ruled_out(own, signal):
                ranges = f"; the student's logits are -inf in {ruled_out} places where its target has mass"
                instead = (
                    "the same mask on the target (whole logits: top_k gives every column some of its tail), `labels` of"
                    " the agent (the classes that it knows), no mask, or an objective that is finite there, such as jsd"
                )
            else:
                ranges = f"; its own signal is {_range(own)}, the target {_range(signal.value)}"
        whose = culprit(term) or _spoilers(term, [one for one, _ in losses])
        raise BrokenLoss(
            f"the loss became {value} at step {step} on the flow {term.edge}{whose and f', by {whose}'}{ranges}",
            where=f"agents.{term.edge.target}",
            instead=instead,
        )


def _ruled_out(own: Tensor | Lazy, signal: Signal) -> int:
    """In how many places of the first rows a label, or a target's mass, meets a logit of -inf; 0 where others broke."""
    most = min(len(own), 256)
    first = [v.detach().rows(0, most) if isinstance(v, Lazy) else v.detach()[:most] for v in (own, signal.value)]
    logits, target = first
    if signal.form == "hidden" or not bool((logits < math.inf).all()):  # NaN and inf: nobody has ruled anything out
        return 0
    never = logits == -math.inf
    if signal.form == "labels":
        return int(never.gather(1, target.clamp(0, never.shape[1] - 1)[:, None]).sum()) if target.dim() == 1 else 0
    if target.shape != logits.shape:
        return 0
    return int((never & ((target.softmax(-1) if signal.form == "logits" else target) > 0)).sum())


def _range(value: Tensor | Lazy) -> str:
    if isinstance(value, Lazy):
        value = value.detach().rows(0, min(len(value), 256))  # what is broken mostly is so everywhere
    value = value.detach().float()
    finite = value[value.isfinite()]
    broken = value.numel() - finite.numel()
    text = f"in [{finite.min().item():.4g}, {finite.max().item():.4g}]" if finite.numel() else "nowhere finite"
    return f"{text} with {broken} values not finite" if broken else text
