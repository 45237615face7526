"""The summary of a run: consensus, best single teacher and students side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.checks import pruned
from kdmesh.engine import notes, texts
from kdmesh.graph.roles import TAUGHT, teachers_of
from kdmesh.plugins import registry
from kdmesh.tasks import metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdmesh.engine.context import RunContext
    from kdmesh.graph.plan import Plan
    from kdmesh.privacy.summary import Summary


def best_teacher(plan: Plan, agents: dict[str, dict[str, Any]], found: dict[str, str]) -> str | None:
    """The best single teacher by validation (the first of equals), of those that are left; never by test."""
    return _best(plan, agents, [name for name in agents if found[name] == "teacher"])


def own_best(plan: Plan, agents: dict[str, dict[str, Any]], found: dict[str, str], student: str) -> str | None:
    """The best by validation of an agent's own teachers, assistants too: whose signals reach it.

    It is who the student is compared with, and who teaches it in its control. ``agents``: figures by split.
    """
    if found[student] not in TAUGHT:
        return None
    return _best(plan, agents, [name for name in teachers_of(plan, student) if found[name] in ("teacher", "assistant")])


def _best(plan: Plan, agents: dict[str, dict[str, Any]], names: list[str]) -> str | None:
    here, by = plan.spec.agents.keys() - plan.dropped, metric(plan.primary)
    known = {name: by.of(agents[name].get("validation")) for name in names if name in here}
    worth = {name: by.worth(value) for name, value in known.items() if value is not None}
    return max(worth, key=worth.__getitem__, default=None)


def summarise(
    run: RunContext,
    agents: dict[str, dict[str, Any]],
    consensus: dict[str, dict[str, Any]],
    described: dict[str, dict[str, Any]],
    said: dict[str, dict[str, Any]],
    spent: Mapping[str, Summary],
) -> dict[str, Any]:
    """Put the figures of a finished run together. Of an agent that was dropped there is what was known before.

    ``spent``: by party with a privacy budget, its account.
    """
    plan = run.plan
    described |= {name: dict.fromkeys(next(iter(described.values())), None) for name in plan.dropped}
    return {
        "name": plan.spec.name,
        "task": plan.task.name,
        "metric": plan.primary,
        "reported": [
            ref.name for ref in plan.spec.metrics if not ref.by and registry().find("metrics", ref.name).scalar
        ],
        "seed": plan.spec.seed,
        "data_seed": plan.spec.data.seed if plan.spec.data is not None else 0,
        "backend": run.backend.name,
        "agents": {
            name: {
                "role": run.roles[name],
                "teachers": teachers_of(plan, name),
                "best_teacher": own_best(plan, agents, run.roles, name),
                "parameters": described[name]["parameters"],
                **pruned.counts(run.checked.pruned.get(plan.owner[name])),
                "metrics": metrics,
                "weights_sha256": described[name]["weights_sha256"],
                "latency_ms": described[name]["latency_ms"],
                "updates": described[name]["updates"],
                "forwards": {"made": _made(run, name, described), "saved": _spared(run, name)},
                **({"objectives": described[name]["reports"]} if described[name]["reports"] else {}),
                **({"gates": described[name]["gates"]} if described[name]["gates"] else {}),
                **({"learned": False} if described[name]["moved"] is False else {}),
                **({"dropped": True} if name in plan.dropped else {}),
            }
            for name, metrics in agents.items()
        },
        "consensus": {
            name: {"sources": [edge.source for edge in plan.consensus[name].members], **values}
            for name, values in consensus.items()
        },
        **({"personal": personal.counts()} if (personal := run.checked.table.personal) is not None else {}),
        **({"canaries": planted.counts()} if (planted := run.checked.table.planted) is not None else {}),
        **({"streams": written} if (written := _written(run)) else {}),
        **({"texts": said} if said else {}),
        **({"privacy": dict(spent)} if spent else {}),
        "best_teacher": best_teacher(plan, agents, run.roles),
        "controls": {},
        "notes": [
            *run.checked.marks,
            *(notes.never_there(one["parties"], one["agents"]) for one in run.drops if "parties" in one),
            *map(notes.on_answers, notes.ordered(run.odd, plan.spec.agents)),
            *texts.notes(_written(run)),
            *notes.learned_nothing(described, plan.owner),
            *notes.left_out(described, plan.owner),
            *notes.always_shut(described),
            *notes.spent(plan, spent),
            *notes.at_chance(plan, run.checked, agents, described),
        ],
        "rounds": [record for stage in plan.stages for record in run.records[stage.name].records],
    }


def _written(run: RunContext) -> dict[str, Any]:
    """What was written for each stream of texts, in the file's order."""
    found = {name: tally for record in run.records.values() for name, tally in record.texts.items()}
    return {name: found[name] for name in run.plan.spec.streams if name in found}


def _made(run: RunContext, name: str, described: dict[str, dict[str, Any]]) -> int | None:
    """Forwards to teach, of the whole run however often it was interrupted; None of an agent that was dropped."""
    here: int | None = described[name]["forwards"]
    return None if here is None else here + run.made(name)


def _spared(run: RunContext, name: str) -> int:
    """Reads of publications beyond the forwards that filled it."""
    size = run.plan.forward_size(name, len(run.checked.table))
    published = sum(-(-run.checked.size(s, name) // size) for a, s in run.publisher.published if a == name)
    return max(0, run.saved(name) - published)
