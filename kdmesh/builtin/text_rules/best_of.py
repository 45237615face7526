"""The best of several texts, by a metric or by what a judge says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdmesh.contracts.text_rule import Choice, TextRule
from kdmesh.errors import MeshError
from kdmesh.text import answers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kdmesh.contracts.filter import WrittenText
    from kdmesh.contracts.text_rule import Candidate

UNSCORED, LOW, SILENT, TIE, EQUAL = "not scored", "too low", "no verdict", "a tie", "equally good"
FEW, DIFFER = "too few verdicts", "verdicts differ"
OUTSIDE = "verdicts outside the form"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class BestOf(TextRule):
    """Chooses the text with the highest score (best-of-n), or with the most verdicts of judges.

    ``metric``: the metric of texts, one that is a mean over them, whose value for a text is its score; a text that it
    does not count has none. Without one, the texts that the stream reads are verdicts: in each, ``verdict`` finds the
    name of a text, one of ``names``, by default `1`, `2`, ... in their order. A verdict in which it finds nothing, or
    no such name, is outside the form: it chooses none, and is counted. Judges prefer what stands first, or last (Zheng
    et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", 2023): with ``names`` by the name of what is read
    one is asked in several orders, in each of which the texts have other names, and ``least: 2`` asks that both agree.

    It abstains where no text is scored, or no verdict names one, and where the best score, or the most verdicts, are
    below ``least``. Of several that are best, the first is chosen, or none with ``ties: abstain``. Whose text is not
    scored is counted. Rejected is the first text with the lowest score, or the fewest verdicts, if that is lower.
    """

    def __init__(
        self,
        metric: object,
        least: float | None,
        verdict: str | None,
        names: list[str] | dict[str, list[str]] | None,
        ties: str,
    ) -> None:
        self.verdict = None if verdict is None else answers.pattern(verdict)
        self.least, self.names, self.ties, self.judged = least, names, ties, metric is None

    def setup(self, columns: Collection[str], sources: Sequence[str], read: Collection[str]) -> None:
        """Refuse names of other texts, a judge where none is asked or that is not there, and too many verdicts."""
        judges = list(dict.fromkeys(read))
        if not self.judged and judges:
            what = f"texts are scored by a metric, and those under {', '.join(judges)} are not looked at"
            raise MeshError(what, where="metric", instead="`verdict` in its place, or no `reads` on the stream")
        if not self.judged:
            return
        if not judges:
            what = "a judge's verdicts are read, and the stream reads none"
            raise MeshError(what, where="verdict", instead="reads: {judge: STREAM} on the stream that has this rule")
        texts, letters = ", ".join(sources), ", ".join(LETTERS[: len(sources)])
        if isinstance(self.names, dict) and {*self.names} != {*judges}:
            what = f"names for {', '.join(self.names)}, and the stream reads {', '.join(judges)}"
            instead = f"names: {{{', '.join(f'{one}: [{letters}]' for one in judges)}}}, each in its own order"
            raise MeshError(what, where="names", instead=instead)
        for at, names in self.names.items() if isinstance(self.names, dict) else [("", self.names)]:
            if names is not None and len(names) != len(sources):
                what = f"{len(names)} names for {len(sources)} texts ({texts})"
                where = f"names.{at}" if at else "names"
                raise MeshError(what, where=where, instead=f"[{letters}], as a judge is told to call them")
        if self.least is not None and self.least > len(read):
            what = f"no text has {self.least:g} verdicts: there are {len(read)} to a prompt ({', '.join(read)})"
            raise MeshError(what, where="least", instead=f"{len(read)} at most")

    def choose(self, texts: Sequence[Candidate], read: Mapping[str, Sequence[WrittenText]]) -> Choice:
        """By scores, or by verdicts."""
        counted: list[str] = []
        if self.judged:
            scores, told, counted = self._verdicts(len(texts), read)
        else:
            scores = [one.score for one in texts]
            told = {"scores": scores}
            counted = [f"no score in {one.stream}" for one in texts if one.score is None]
        known = [score for score in scores if score is not None]
        if not known:
            return Choice(None, SILENT if self.judged else UNSCORED, told, counted)
        best = max(known)
        first = [at for at, score in enumerate(scores) if score == best]
        told["tied"] = first if len(first) > 1 else []
        if self.least is not None and best < self.least:
            several = sum(score > 0 for score in known) > 1
            return Choice(None, (DIFFER if several else FEW) if self.judged else LOW, told, counted)
        if len(first) > 1 and self.ties == "abstain":
            return Choice(None, TIE, told, counted)
        counted = counted + ["ties broken"] * (len(first) > 1)
        rejected = scores.index(min(known)) if min(known) < best else None
        return Choice(first[0], EQUAL if rejected is None else "", told, counted, rejected=rejected)

    def _verdicts(
        self, count: int, read: Mapping[str, Sequence[WrittenText]]
    ) -> tuple[list[float | None], dict[str, Any], list[str]]:
        """How many verdicts each text has, None where none has any; what was said; what was outside the form."""
        said = [(judge, answers.extracted(self.verdict, one.answer)) for judge, texts in read.items() for one in texts]
        named = [self._named(judge, verdict, count) for judge, verdict in said]
        votes = [named.count(at) for at in range(count)]
        outside = [at for at in named if at is None]
        told = {"verdicts": [{"judge": judge, "verdict": verdict} for judge, verdict in said]}
        scores: list[float | None] = [float(one) if any(votes) else None for one in votes]
        return scores, told, [OUTSIDE] * len(outside)

    def _named(self, judge: str, verdict: str | None, count: int) -> int | None:
        """The place of the text that a verdict names, None where it names none."""
        own = self.names[judge] if isinstance(self.names, dict) else self.names
        names = own[:count] if own else [str(number + 1) for number in range(count)]
        return names.index(verdict) if verdict in names else None
