"""Which nodes are drawn as one: equal ones, and of large meshes also those that are nearly so."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from kdmesh.report.drawing.words import Facts

FEW = 5  # equal nodes that are still drawn each
MOST, PAIRS = 16, 40  # nodes of a drawing, and pairs of them that flows join; where it has more, unlike ones are one
HOSTS = 6  # hosts whose agents are kept apart

Links = list[tuple[str, str, str]]  # source, target, what a flow says


def groups(facts: Mapping[str, Facts], where: Mapping[str, Hashable], links: Links) -> list[list[str]]:
    """Return every node once, in groups that are drawn as one, both in declared order.

    Members of a group are replicas of one agent, or of none; they have the same facts, the same place among the stages
    (``where``), and the same flows to and from other groups. Where that leaves more than a reader takes in, settings do
    not part them any more, then neighbours do not, and at last only the role, and whether they are frozen or private,
    does.
    """
    hosts = {fact.get("host") for fact in facts.values()}
    apart = () if len(hosts) > HOSTS else ("host",)
    same = ("role", "frozen", "private")

    def settings(name: str) -> Hashable:
        party = name.rpartition("[")[0] if name.endswith("]") else ""  # replicas stay with their own
        return party, *(value for key, value in facts[name].items() if key != "host" or apart)

    def kind(name: str) -> Hashable:
        model = facts[name].get("model") or facts[name].get("rule", "")
        return model.partition("(")[0], *(facts[name].get(key) for key in (*same, *apart))

    def role(name: str) -> Hashable:
        return tuple(facts[name].get(key) for key in same)

    found: list[list[str]] = []
    for key, few, neighbours in (
        (settings, FEW, True),
        (settings, 1, True),
        (kind, 1, True),
        (kind, 1, False),
        (role, 1, False),
    ):
        parts = _parted(facts, lambda name, key=key: (key(name), where.get(name)))  # type: ignore[misc]
        parts = _whole(parts, few)
        found = _whole(_by_neighbours(parts, links), few) if neighbours else parts
        if len(found) <= MOST and _pairs(found, links) <= PAIRS:
            break
    rank = {name: number for number, name in enumerate(facts)}
    return sorted(found, key=lambda group: rank[group[0]])


def _pairs(parts: list[list[str]], links: Links) -> int:
    """How many pairs of groups have flows between them."""
    group = {name: number for number, part in enumerate(parts) for name in part}
    ends = {(group[source], group[target]) for source, target, _ in links}
    return len({frozenset(pair) for pair in ends if pair[0] != pair[1]})


def _parted(names: Iterable[str], key: Callable[[str], Hashable]) -> list[list[str]]:
    """Names by key, in order."""
    found: dict[Hashable, list[str]] = defaultdict(list)
    for name in names:
        found[key(name)].append(name)
    return list(found.values())


def _whole(parts: list[list[str]], few: int) -> list[list[str]]:
    """The same, with each member of a small group on its own."""
    return [own for part in parts for own in ([part] if len(part) > few else [[name] for name in part])]


def _by_neighbours(parts: list[list[str]], links: Links) -> list[list[str]]:
    """Part each group by the flows of its members to and from other groups.

    Once: repeated until nothing changes, it would take a chain of equal agents apart from both ends.
    """
    group = {name: number for number, part in enumerate(parts) for name in part}
    around: dict[str, set[tuple[str, int, str]]] = defaultdict(set)
    for source, target, text in links:
        if group[source] != group[target]:
            around[source].add(("to", group[target], text))
            around[target].add(("from", group[source], text))
    return [new for part in parts for new in _parted(part, lambda name: frozenset(around[name]))]
