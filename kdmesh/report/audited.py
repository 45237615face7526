"""What an audit found, as tables and lines: for the terminal, and for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.report.grid import KEPT, Column, Grid

if TYPE_CHECKING:
    from collections.abc import Mapping

Row = dict[str, Any]
CHANCE = 1.44
"""Bits of exposure of what nobody learned, on average (1 / ln 2)."""


def tables_of(found: Mapping[str, Any]) -> list[Grid]:
    """The tables of an audit's plain data; those that have no rows are left out."""
    made = [
        _membership(found["membership"]),
        _canaries(found["canaries"]),
        _said(found["said"]),
        _spans(found["spans"]),
    ]
    return [one for one in made if one.rows]


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """What its figures mean, and how much so many samples could have shown."""
    lines: list[str] = []
    for by, one in {one["by"]: one for one in reversed(found["membership"])}.items():
        lines.append(
            f"By {by}: of {one['others']:,} others at most a share of {one['rate']:.2g} is taken for members; so many "
            f"show no rate below {one['least_rate']:.2g}. Intervals of 95%. By guessing the area under the curve is "
            f"0.5, and {one['rate']:.2g} is found."
        )
    for one in found["canaries"][:1]:
        count = len(one["in"]) + len(one["out"])
        times = (found["canaries_planted"] or {}).get("times", 1)
        often = f" It is of all {times:,} copies of a canary together." if times > 1 else ""
        lines.append(
            f"{count:,} canaries can show no more than {one['most']:.1f} bits each; what nobody learned has {CHANCE} "
            f"on average. {one['guesses']:,} guesses can show no epsilon above {one['epsilon_most']:.2f}, at 95% and "
            f"delta {one['delta']:.2g}: a lower bound of 0 is no proof of privacy.{often}"
        )
    for one in found["said"][:1]:
        alone = " All were asked for with the same text: put {number} into it." if one["prompts"] == 1 else ""
        lines.append(
            f"A secret is said where the answer begins with it; drawn: in any of {one['draws']:,} tries.{alone}"
        )
    if found["membership"] or found["canaries"]:
        lines.append(
            "These are some attacks: a better one may find more, and where they find nothing that does not show that "
            "there is nothing."
        )
    return lines


HEAD, NEXT = "\n## Audit\n", "\n## "


def on_card(card: str, found: Mapping[str, Any], agent: str) -> str:
    """An agent's card with what the audit found of it, in place of what an earlier one did."""
    lines = []
    for one in found["membership"]:
        if one["agent"] == agent:
            whose = "its samples" if one["learned_by"] == agent else f"those that {one['learned_by']} learned"
            lines.append(
                f"of {one['members']:,} of {whose} {one['share']:.3f} ({_ends(one['interval'])}) are told by "
                f"{one['by']} at {one['rate']:.2g} false positives among {one['others']:,}; area {one['auc']:.3f} "
                f"({_ends(one['auc_interval'])})"
            )
    for one in found["canaries"]:
        if one["agent"] == agent:
            lines.append(
                f"exposure of {len(one['in']):,} canaries {one['mean']:.2f} bits ({_ends(one['interval'], 2)}), of "
                f"{one['most']:.0f} that can be shown; epsilon is at least {one['epsilon']:.2f}, of "
                f"{one['epsilon_most']:.2f} that can be shown"
            )
    lines += [
        f"{one['greedy']} of {one['canaries']:,} planted secrets are said by greedy decoding, {one['drawn']} in any of "
        f"{one['draws']:,} tries by chance"
        for one in found["said"]
        if one["agent"] == agent and one["inside"]
    ]
    before, _, after = card.partition(HEAD)
    rest = after.partition(NEXT)
    kept = before + (NEXT + rest[2] if rest[1] else "")
    said = "\n".join(f"- {one}" for one in lines)
    return kept if not lines else f"{kept.rstrip()}\n{HEAD}\n`kdmesh audit`, intervals of 95%:\n\n{said}\n"


def _who(one: Mapping[str, Any]) -> str:
    return "itself" if one["learned_by"] == one["agent"] else str(one["learned_by"])


def _membership(found: list[Row]) -> Grid:
    rows = [
        {
            "agent": one["agent"], "of": _who(one), "by": one["by"], "members": one["members"], "auc": one["auc"],
            "of_auc": _ends(one["auc_interval"]), "share": one["share"], "of_share": _ends(one["interval"]),
            "accuracy": one["accuracy"], "others": one["accuracy_others"],
        }
        for one in found
    ]  # fmt: skip
    rate = found[0]["rate"] if found else 0.01
    several = len({one["by"] for one in found}) > 1
    return Grid(
        "Members told by their loss" if not several else "Members told",
        [
            Column("agent", "agent", spare=KEPT),
            Column("learned by", "of", spare=KEPT),
            *([Column("by", "by", spare=KEPT)] if several else []),
            Column("members", "members", "{:,}".format, 2),
            Column("area", "auc", "{:.3f}".format),
            Column("of 95%", "of_auc", spare=1),
            Column(f"found at {rate:.2g}", "share", "{:.3f}".format),
            Column("of 95%", "of_share", spare=1),
            Column("right, members", "accuracy", "{:.3f}".format, 3),
            Column("right, others", "others", "{:.3f}".format, 3),
        ],
        rows,
    )


def _canaries(found: list[Row]) -> Grid:
    rows = [
        {
            "agent": one["agent"], "reached": ", ".join(one["reached"]) or "nobody", "in": len(one["in"]),
            "bits": one["mean"], "of_bits": _ends(one["interval"], 2), "out": one["mean_out"],
            "of_out": _ends(one["interval_out"], 2), "p": one["p"], "right": f"{one['right']} of {one['guesses']}",
            "epsilon": one["epsilon"],
        }
        for one in found
    ]  # fmt: skip
    columns = [
        Column("agent", "agent", spare=KEPT),
        Column("they reached", "reached", spare=4),
        Column("in", "in", "{:,}".format, 2),
        Column("bits", "bits", "{:.2f}".format),
        Column("of 95%", "of_bits", spare=1),
        Column("bits, out", "out", "{:.2f}".format),
        Column("of 95%", "of_out", spare=3),
        Column("by chance", "p", "{:.2g}".format, 1),
        Column("guessed right", "right", spare=2),
        Column("epsilon, at least", "epsilon", "{:.2f}".format, 2),
    ]
    return Grid("Canaries: exposure, in bits", columns, rows)


def _said(found: list[Row]) -> Grid:
    rows = [
        {
            "agent": one["agent"], "canaries": f"{one['canaries']} {'in' if one['inside'] else 'out'}",
            "greedy": one["greedy"], "of_greedy": _ends(one["intervals"][0]), "drawn": one["drawn"],
            "of_drawn": _ends(one["intervals"][1]),
        }
        for one in found
    ]  # fmt: skip
    columns = [
        Column("agent", "agent", spare=KEPT),
        Column("secrets", "canaries", spare=KEPT),
        Column("said, greedy", "greedy", "{:,}".format),
        Column("share, 95%", "of_greedy", spare=1),
        Column("said, drawn", "drawn", "{:,}".format),
        Column("share, 95%", "of_drawn", spare=1),
    ]
    return Grid("Secrets that are said to what stands before them", columns, rows)


def _spans(found: list[Row]) -> Grid:
    rows = [
        {
            "agent": one["agent"], "of": _who(one), "written": one["written"], "mean": one["mean"],
            "others": one["mean_others"], "longest": one["longest"], "longest_others": one["longest_others"],
        }
        for one in found
    ]  # fmt: skip
    columns = [
        Column("agent", "agent", spare=KEPT),
        Column("learned by", "of", spare=KEPT),
        Column("written", "written", "{:,}".format, 2),
        Column("words, learned", "mean", "{:.1f}".format),
        Column("of others", "others", "{:.1f}".format),
        Column("longest", "longest", "{:,}".format, 1),
        Column("of others", "longest_others", "{:,}".format, 1),
    ]
    return Grid("Longest spans of learned texts in what it writes", columns, rows)


def _ends(interval: tuple[float, float], digits: int = 3) -> str:
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"
