"""Notes on what came out of a run: they stand beneath its tables, and a resumed run has those of an unbroken one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.agents.guard import DEAD, Oddity
from kdmesh.streams.texts import Texts
from kdmesh.tasks import metric

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdmesh.contracts.task import Chance
    from kdmesh.engine.checked import Checked
    from kdmesh.engine.run import Run

ADVICE = "leave the softmax out of the model, or take its input by `exit`"


def ends_in_softmax(agent: str) -> str:
    """What `check` says of a model whose last operation is a softmax."""
    return (
        f"{agent}: the model ends in a softmax, and whoever reads it applies another one: its answers are softened "
        f"twice; {ADVICE}"
    )


def on_answers(oddity: Oddity) -> str:
    """What is said of an agent's answers."""
    agent, stream, kind = oddity
    if kind == DEAD:
        return f"{agent} is a dead source: what it says on {stream!r} holds NaN or infinite numbers"
    return (
        f"{agent}: its answers look like probabilities, not logits: they are within [0, 1] and sum to 1, and whoever "
        f"reads them, its own loss and calibration too, applies a softmax to them; {ADVICE}, or give their logarithm"
    )


def ordered(found: Iterable[Oddity], agents: Iterable[str]) -> list[Oddity]:
    """Oddities in an order that does not depend on when each was seen."""
    place = {name: number for number, name in enumerate(agents)}
    return sorted(found, key=lambda oddity: (place[oddity[0]], *oddity[1:]))


def learned_nothing(described: dict[str, dict[str, Any]], owners: dict[str, str]) -> list[str]:
    """Weights that were updated and never changed, by what their agents' descriptions say."""
    still = dict.fromkeys(owners[name] for name, facts in described.items() if facts["moved"] is False)
    return [
        f"{owner} learned nothing: none of its {described[owner]['updates']} updates changed a weight"
        for owner in still
    ]


def at_chance(run: Run, agents: dict[str, dict[str, Any]], described: dict[str, dict[str, Any]]) -> list[str]:
    """Say which agents are, on test, no better than to give the same answer always.

    ``agents``: their figures by split; ``described``: what their hosts say of them, the task's level of chance too.
    """
    levels: dict[Chance, list[str]] = {}
    for name, metrics in agents.items():
        chance: Chance | None = described[name].get("chance")
        learns = run.plan.owner[name] in run.plan.trainable and run.plan.spec.agents[name].labels is None
        if learns and chance is not None:
            by = metric(chance.metric)
            figure = by.of(metrics.get("test"))
            if figure is not None and by.gain(figure, chance.value) <= 0:
                levels.setdefault(chance, []).append(name)
    return [
        f"at chance, no better on test than {chance.words} ({chance.value:.4f}): {', '.join(names)}; "
        f"{_advice(run.checked)}"
        for chance, names in levels.items()
    ]


def _advice(found: Checked) -> str:
    """What to look at first, by the kind of data."""
    if isinstance(found.table.x, Texts):
        return "is the learning rate right, and are there updates enough?"
    what = "features" if found.table.x.dim() == 2 else "values of the samples"
    return f"are the {what} scaled, and is the learning rate right?"
