"""Weights that flow: what arrives is averaged and loaded, and a consensus combines weights by its rule.

Of a state (parameters and persistent buffers), what is of floating point is combined; whole numbers and truth values,
such as counts of batches, are those of the first source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from kdmesh.contracts.rule import weighted_sum
from kdmesh.errors import FAULTS, MeshError
from kdmesh.hosts import guard
from kdmesh.hosts.modules import build
from kdmesh.hosts.packing import pack, unpack
from kdmesh.hosts.parameters import refuse_parameters
from kdmesh.imports import import_path
from kdmesh.streams.seeds import mix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from kdmesh.graph.merging import Pool
    from kdmesh.hosts.packing import Packed
    from kdmesh.hosts.state import HostState

    State = dict[str, Tensor]

CPU = torch.device("cpu")
TRIED = 8  # values that rules are tried with


def take(host: HostState, owner: str, shares: Sequence[float], states: Sequence[dict[str, Packed]]) -> None:
    """Load the average of what arrives into a set of weights; of a single source, its weights as they are."""
    arrived = [_unpacked(state) for state in states]
    total = sum(shares)

    def average(rows: Tensor) -> Tensor:
        return weighted_sum(rows, rows.new_tensor([share / total for share in shares])[:, None])

    host.weights[owner].load(arrived[0] if len(arrived) == 1 else combined(arrived, average))


def combine(
    host: HostState, name: str, present: Sequence[bool], at: int, states: Sequence[dict[str, Packed]]
) -> dict[str, Packed]:
    """What a consensus of weights makes of those that arrive. ``present``: of which of its sources they are."""

    def call(rows: Tensor) -> Tensor:
        if all(present):
            return _call(host, name, host.pools[name], rows, None, at)
        values, here = rows.new_zeros(len(present), *rows.shape[1:]), torch.tensor(present)
        values[here] = rows
        return _call(host, name, host.pools[name], values, here[:, None], at)

    state = combined([_unpacked(state) for state in states], call)
    return {key: pack((value, {})) for key, value in state.items()}


def combined(states: Sequence[State], call: Callable[[Tensor], Tensor]) -> State:
    """A state whose floating point values, in the order of the state, are what a call makes of ``[M, 1, P]``."""
    first = states[0]
    names = floating(first)
    if not names:
        return first
    wide = torch.float64 if any(first[name].dtype == torch.float64 for name in names) else torch.float32
    rows = torch.stack([torch.cat([state[name].flatten().to(wide) for name in names]) for state in states])[:, None]
    parts = call(rows)[0].split([first[name].numel() for name in names])
    made = {name: part.view_as(first[name]).to(first[name].dtype) for name, part in zip(names, parts, strict=True)}
    return {name: made.get(name, value) for name, value in first.items()}


def floating(state: Mapping[str, Tensor]) -> list[str]:
    """The names of what is combined of a state."""
    return [name for name, value in state.items() if value.is_floating_point()]


def rules(host: HostState) -> dict[str, Any]:
    """The rules of the consensus nodes of weights that are combined here, each set up for as many values."""
    found: dict[str, Any] = {}
    plan = host.plan
    for name, pool in plan.merging.pools.items():
        if plan.pool_home(name) == host.name:
            first = plan.merging.readers(name)[0]
            if first in host.agents:
                state: Mapping[str, Tensor] = host.agents[first].weights.state()
            else:  # which lives elsewhere: only sizes matter
                owner, modules = plan.owner[first], host.config.modules
                state = build(plan, owner, host.reading, host.registry, modules, "meta").state_dict()
            found[name] = rule(host, pool, sum(state[key].numel() for key in floating(state)))
    return found


def rule(host: HostState, pool: Pool, values: int) -> Any:
    """One rule, seeded by the name of its node, for weights of so many values."""
    config, where = host.registry.check("consensus", pool.rule.name, pool.rule.config), f"consensus.{pool.name}"
    try:
        with guard.seeded(mix(host.seed, "consensus", pool.name)):
            made: Any = import_path(pool.factory, f"{where}.rule")(**config.model_dump())
            made.space = "weights"
            offer = host.registry.find("consensus", pool.rule.name)
            refuse_parameters(host.registry, offer, "forward", made.forward, 1, ("logits", "present"), f"{where}.rule")
            made.setup(tuple(flow.source for flow in pool.inputs), values, ())
    except MeshError as error:
        raise _at(error, pool) from None
    except FAULTS as error:
        host.registry.attribute_error("consensus", pool.rule.name, error, "to be made", where)
    return made


def rehearse(host: HostState) -> None:
    """Have every rule combine random numbers, as it will weights."""
    for name, pool in host.plan.merging.pools.items():
        made, count = rule(host, pool, TRIED), len(pool.inputs)
        for at in range(2):
            rows = torch.randn(count, 1, TRIED, generator=torch.Generator().manual_seed(at))
            _call(host, name, made, rows, None, at)


def _call(host: HostState, name: str, rule: Any, rows: Tensor, present: Tensor | None, at: int) -> Tensor:
    """Ask a rule, seeded by its node and the time; what it gives is checked."""
    pool = host.plan.merging.pools[name]
    try:
        with guard.seeded(mix(host.seed, "merge", name, at)), torch.no_grad():
            value: Tensor = host.timed("consensus", pool.rule.name, rule)(rows, logits=rows, present=present)
        guard.refuse_values(value, rows.shape[1:], rows)
    except MeshError as error:
        raise _at(error, pool) from None
    except FAULTS as error:
        doing, where = f"to combine weights after step {at}", f"consensus.{name}"
        host.registry.attribute_error("consensus", pool.rule.name, error, doing, where)
    return value


def _at(error: MeshError, pool: Pool) -> MeshError:
    """The error, at the rule that raised it."""
    if not error.where.startswith("consensus."):
        error.where = f"consensus.{pool.name}.rule.{pool.rule.name}" + (f".{error.where}" if error.where else "")
    return error


def _unpacked(state: dict[str, Packed]) -> State:
    return {name: value[0] for name, value in unpack(state, CPU).items()}
