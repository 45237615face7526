"""What a ledger says in all, as plain data: for the terminal, a report or a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from kdmesh.privacy.accounting import EXACT, RDP, Gaussian, epsilons

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdmesh.privacy.ledger import Account, Charge

MOST = 10**9  # further answers that are counted
_Kind = tuple[str, str, str, float, float, float]


class Spent(TypedDict):
    """What the answers of one mechanism cost, alone.

    Attributes:
        settings: what else its answers depend on, as ``threshold=200``.
        answers: how many were charged.
        more: how many further ones the budget has room for, at most 10^9.
        rdp: epsilon at the budget's delta by Renyi divergences.
        exact: the smallest epsilon there is for Gaussian noise; None where samples take part by chance.
        rate: with what probability they do, 1 where all take part.
    """

    mechanism: str
    settings: str
    noise_by: str
    sensitivity: float
    sigma: float
    answers: int
    more: int
    rdp: float
    exact: float | None
    rate: float


class Summary(TypedDict):
    """A ledger in all. ``left``: of the budget's epsilon, by Renyi divergences, to which it is held."""

    party: str
    key: str
    unit: str
    adjacency: str
    epsilon: float
    delta: float
    mechanisms: list[Spent]
    charges: int
    answers: int
    rdp: float
    exact: float | None
    left: float
    head: str


def summary(account: Account) -> Summary:
    """Add up what a ledger says."""
    title, whole = account.title, account.answers()
    groups: dict[_Kind, list[Charge]] = {}
    for line in account.lines:
        one = line.charge
        settings = ", ".join(f"{name}={value:g}" for name, value in one.settings.items())
        groups.setdefault((one.mechanism, settings, one.noise_by, one.sensitivity, one.sigma, one.rate), []).append(one)
    total = epsilons(whole, title.budget.delta)
    return Summary(
        party=title.party,
        key=title.key,
        unit=title.unit,
        adjacency=title.adjacency,
        epsilon=title.budget.epsilon,
        delta=title.budget.delta,
        mechanisms=[_spent(account, name, charges) for name, charges in groups.items()],
        charges=len(account.lines),
        answers=sum(one.count for one in whole),
        rdp=total[RDP],
        exact=total.get(EXACT),
        left=max(0.0, title.budget.epsilon - total[RDP]),
        head=account.head,
    )


def spent(found: Summary) -> str:
    """An account in a sentence: of all meshes and runs that asked the party so far."""
    said = f"{found['rdp']:.4f} of epsilon {found['epsilon']:g} is spent, at delta {found['delta']:g}"
    left = f"{found['left']:.4f} is left"
    if found["exact"] is not None:
        left += f"; exact, as of Gaussian noise, {found['exact']:.4f} is spent"
    return f"{said}, by Renyi divergences: {left}"


def line_of(found: Summary) -> str:
    """The same with whose it is, whom it protects, and what was answered."""
    what = ", ".join(f"{one['answers']:,} of {one['mechanism']}" for one in found["mechanisms"]) or "nothing"
    return f"{found['party']}, for one {found['unit']} ({found['adjacency']}): answered {what}; {spent(found)}"


def _spent(account: Account, name: _Kind, charges: Sequence[Charge]) -> Spent:
    mechanism, settings, noise_by, sensitivity, sigma, rate = name
    answers = Gaussian(sensitivity, sigma, sum(one.answers.count for one in charges), rate)
    alone = epsilons([answers], account.title.budget.delta)
    return Spent(
        mechanism=mechanism,
        settings=settings,
        noise_by=noise_by,
        sensitivity=sensitivity,
        sigma=sigma,
        answers=answers.count,
        more=account.room(sensitivity, sigma, MOST, rate),
        rdp=alone[RDP],
        exact=alone.get(EXACT),
        rate=rate,
    )
