"""All mutants by their kind."""

from __future__ import annotations

from .kinds import (
    batch_order,
    caches,
    cpu,
    detach,
    eval_state,
    filters,
    in_place,
    pickling,
    precision,
    prunings,
    randomness,
    recognisers,
    reduction,
    set_order,
    temperature,
    text_rules,
    undeclared,
    weights,
)
from .mutant import Mutant

KINDS: dict[str, list[Mutant]] = {
    "detach": detach.MUTANTS,
    "reduction by sum of weights or live count": reduction.MUTANTS,
    "in place": in_place.MUTANTS,
    "state in eval mode": eval_state.MUTANTS,
    "rules: batch and order": batch_order.MUTANTS,
    "float64 and half": precision.MUTANTS,
    "constants on the CPU": cpu.MUTANTS,
    "global and numpy randomness": randomness.MUTANTS,
    "order of sets": set_order.MUTANTS,
    "caches of classes": caches.MUTANTS,
    "pickling": pickling.MUTANTS,
    "undeclared labels": undeclared.MUTANTS,
    "ignored temperature": temperature.MUTANTS,
    "`forward` against `weights`": weights.MUTANTS,
    "filters": filters.MUTANTS,
    "rules over texts": text_rules.MUTANTS,
    "rules of pruning": prunings.MUTANTS,
    "recognisers": recognisers.MUTANTS,
}
