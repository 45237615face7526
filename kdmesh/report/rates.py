"""What a learning-rate range test found, for a terminal: the loss by the rate, and what to write."""

from __future__ import annotations

from typing import IO, Protocol

from kdmesh.errors import printable
from kdmesh.report import layout

ROWS = 25  # at most
BAR = 40  # cells of the largest loss


class Found(Protocol):
    """See :class:`kdmesh.engine.rates.Rates`."""

    @property
    def agent(self) -> str:
        """Who was trained."""

    @property
    def rates(self) -> list[float]:
        """Of each update."""

    @property
    def smoothed(self) -> list[float]:
        """The loss at each."""

    @property
    def fastest(self) -> float | None:
        """Where the loss falls fastest."""

    @property
    def lowest(self) -> float | None:
        """Where it is lowest."""

    @property
    def diverged(self) -> bool:
        """Whether it grew without bound."""


def show(out: IO[str], found: Found, optimizer: str) -> None:
    """Print the smoothed loss at every few rates, as a number and as a bar from the least one, and the conclusion."""
    step = max(1, -(-len(found.rates) // ROWS))
    at = range(step - 1, len(found.rates), step)
    least = min(found.smoothed, default=0.0)
    span = max((found.smoothed[one] for one in at[:-1]), default=0.0) - least or 1.0  # the last may be without bound
    print(f"{printable(found.agent)}: training loss, smoothed, as the learning rate rises", file=out)
    print(f"{'rate':>9}  {'loss':>9}", file=out)
    for one in at:
        bar = "█" * round(BAR * min(1.0, (found.smoothed[one] - least) / span))
        print(f"{found.rates[one]:9.1e}  {found.smoothed[one]:9.4g}  {bar}".rstrip(), file=out)
    for line in conclusion(found, optimizer):
        print("\n".join(layout.wrap(printable(line), layout.terminal_width(out), "  ")), file=out)


def conclusion(found: Found, optimizer: str) -> list[str]:
    """In words: where the loss falls fastest, and what to write; one seed of one short run."""
    if found.fastest is None or found.lowest is None:
        high = found.rates[-1] if found.rates else 0.0
        lines = ["the loss falls at none of these rates: nothing is suggested"]
        return lines if found.diverged else [*lines, f"it did not grow either up to {high:.1e}: try a larger --high"]
    lines = [
        f"falls fastest at {found.fastest:.1e}; lowest at {found.lowest:.1e}, where training is seldom stable",
        f"to begin with: {{{optimizer}: {{lr: {found.fastest:.1e}}}}}, from one seed of one short run",
    ]
    if not found.diverged and found.lowest == found.rates[-1]:
        lines.append("it still falls at the last rate: try a larger --high")
    return lines
