"""A stream's samples as an agent sees them that trains privately: each by chance, in batches that nobody else has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdmesh.errors import MeshError
from kdmesh.graph import digests
from kdmesh.graph.private_training import mechanism, party_of
from kdmesh.streams.order import steps_per_epoch

if TYPE_CHECKING:
    from kdmesh.hosts.loader import Batch, ShardView
    from kdmesh.hosts.state import HostState
    from kdmesh.privacy.mechanisms.dp_sgd import DPSGD
    from kdmesh.privacy.steps import Steps


class Drawn:
    """Poisson batches of a shard view: see :class:`kdmesh.hosts.loader.BatchSource`.

    An epoch has as many steps as batches of ``expected`` make, which is how many samples a step has on average.
    ``where``: the stage and lesson whose steps these are.
    """

    def __init__(self, whole: ShardView, steps: Steps, mechanism: DPSGD, where: str, expected: int) -> None:
        self.whole, self.steps, self.mechanism, self.where, self.expected = whole, steps, mechanism, where, expected
        self.stream, self.device, self.units, self.owner = whole.stream, whole.device, whole.units, whole.owner

    def __len__(self) -> int:
        return len(self.whole)

    def count(self, step: int, size: int, drop_last: bool) -> int:
        """How many samples the batch of a step is expected to have."""
        return self.expected

    def sizes(self, step: int, size: int, drop_last: bool) -> int:
        """The same."""
        return self.expected

    def batch(self, step: int, size: int, drop_last: bool) -> Batch | None:
        """The batch of a step; None where chance gave it no sample."""
        at = torch.from_numpy(self.steps.draw(self.where, step, len(self))).to(self.device)
        return self.whole.cut(at, step // steps_per_epoch(len(self), size, drop_last)) if len(at) else None

    def rows(self, at: Tensor) -> Tensor:
        """Where the answers for the samples at positions ``at`` stand among those for all."""
        return self.whole.rows(at)

    def samples(self, at: Tensor) -> Tensor:
        """The stable ids of positions."""
        return self.whole.samples(at)


def by_chance(host: HostState, agent: str, stream: str, where: str, size: int) -> Drawn:
    """A private stream as an agent draws it, on the account of its party."""
    whole = host.loader.shard(stream, agent, host.agents[agent].device, told=True)
    party, how = party_of(host.plan, agent), mechanism(host.plan, agent, len(whole))
    account = host.config.accounts.get(party)
    if account is None:
        what = f"{agent} trains on the account of {party}, and none was opened here"
        raise MeshError(what, where=f"parties.{party}.privacy", instead="--privacy FOLDER, of kdmesh ledger new")
    steps = account.steps(digests.of_run(host.plan), agent, how)
    return Drawn(whole, steps, how, where, min(size, len(whole)))
