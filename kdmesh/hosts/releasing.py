"""What a consensus releases: its party's account answers, as far as its budget goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdmesh.errors import MeshError
from kdmesh.graph import budgets, digests

if TYPE_CHECKING:
    from torch import Tensor

    from kdmesh.contracts.rule import Releasing
    from kdmesh.graph.nodes import ConsensusNode
    from kdmesh.hosts.state import HostState


def release(
    host: HostState, node: ConsensusNode, rule: Releasing, values: Tensor, present: Tensor | None, about: list[str]
) -> tuple[Tensor, Tensor]:
    """Distributions ``[B, C]`` and who was answered ``[B]``, of ``values [M, B, C]``.

    ``about``: by row, what it is asked about: what is asked so once more costs nothing, and has the same answer.
    """
    account = host.config.accounts.get(node.home)
    if account is None:
        what = f"{node.rule.name} answers on the account of {node.home}, and none was opened here"
        raise MeshError(what, where=f"parties.{node.home}.privacy", instead="--privacy FOLDER, of kdmesh ledger new")
    mechanism = budgets.mechanism(host.plan, node.name)
    hidden = rule.private(values.detach(), present).numpy()
    rows, answers = account.answer(mechanism, digests.of_run(host.plan), about, hidden)
    said = torch.from_numpy(answers)
    given = said.new_full((len(hidden), *said.shape[1:]), torch.nan if said.is_floating_point() else -1)
    given[torch.from_numpy(rows)] = said
    told, answered = rule.public(given, values.shape[-1])
    return told.to(values), answered.to(values.device)
