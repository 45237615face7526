"""The best of several texts, by a metric or by what a judge says of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.text_rule import Choice, TextRule
from kdmesh.errors import MeshError
from kdmesh.text import answers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kdmesh.contracts.filter import WrittenText
    from kdmesh.contracts.text_rule import Candidate

UNSCORED, LOW, SILENT, TIE = "not scored", "too low", "no verdict", "a tie"
EQUAL, ALIKE, ALONE = "equally good", "equal answers", "nothing to reject"
FEW, DIFFER = "too few verdicts", "verdicts differ"
OUTSIDE, GONE, SPLIT = "verdicts outside the form", "verdicts for a text that is missing", "verdicts split"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class BestOf(TextRule):
    """Chooses the text with the highest score (best-of-n), or with the most verdicts of judges.

    ``metric``: the metric of texts, one that is a mean over them, whose value for a text is its score; a text that it
    does not count has none. Without one, the texts that the stream reads are verdicts: in each, ``verdict`` finds the
    name of a text, one of ``names``, by default `1`, `2`, ... in their order. A verdict in which it finds nothing, or
    no such name, is outside the form: it chooses none, and is counted. Judges prefer what stands first, or last (Zheng
    et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", 2023): with ``names`` by the name of what is read
    one is asked in several orders, in each of which the texts have other names. An order then has one verdict, whom
    most of its texts name, or none where they split; ``least`` counts orders, and by default is all of them. Texts that
    are equal are one to a judge: which of them it names is where it stands, and not what it says.

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
        self.orders = names if isinstance(names, dict) else {}
        self.least = float(len(names)) if least is None and isinstance(names, dict) else least
        self.names, self.ties, self.judged, self.count = names, ties, metric is None, 0

    def setup(self, columns: Collection[str], sources: Sequence[str], read: Collection[str]) -> None:
        """Refuse names of other texts, a judge where none is asked or that is not there, and too many verdicts."""
        judges = list(dict.fromkeys(read))
        if not self.judged and judges:
            what = f"texts are scored by a metric, and those under {', '.join(judges)} are not looked at"
            raise MeshError(what, where="metric", instead="`verdict` in its place, or no `reads` on the stream")
        if not self.judged:
            return
        self.count = len(sources)
        if not judges:
            what = "a judge's verdicts are read, and the stream reads none"
            instead = "`metric` in its place; or a stream of `consensus_of` with `reads: {judge: STREAM}`"
            raise MeshError(what, where="verdict", instead=instead)
        texts, letters = ", ".join(sources), ", ".join(LETTERS[: len(sources)])
        turned = ", ".join(reversed(LETTERS[: len(sources)]))
        if self.orders and {*self.orders} != {*judges}:
            what = f"names for {', '.join(self.orders)}, and the stream reads {', '.join(judges)}"
            orders = ", ".join(f"{one}: [{turned if at % 2 else letters}]" for at, one in enumerate(judges))
            raise MeshError(what, where="names", instead=f"names: {{{orders}}}, each in its own order")
        for at, names in self.orders.items() if isinstance(self.names, dict) else [("", self.names)]:
            if names is not None and len(names) != len(sources):
                what = f"{len(names)} names for {len(sources)} texts ({texts})"
                where = f"names.{at}" if at else "names"
                raise MeshError(what, where=where, instead=f"[{letters}], as a judge is told to call them")
        there = judges if self.orders else read
        if self.least is not None and self.least > len(there):
            kind = "one of each order" if self.orders else f"{len(there)} to a prompt"
            what = f"no text has {self.least:g} verdicts: there {'is' if self.orders else 'are'} {kind}"
            raise MeshError(f"{what} ({', '.join(there)})", where="least", instead=f"{len(there)} at most")

    def choose(self, texts: Sequence[Candidate], read: Mapping[str, Sequence[WrittenText]]) -> Choice:
        """By scores, or by verdicts."""
        counted: list[str] = []
        if self.judged:
            scores, told, counted = self._verdicts(texts, read)
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
        if min(known) < best:
            return Choice(first[0], "", told, counted, rejected=scores.index(min(known)))
        alone = ALIKE if self.judged and len(texts) > 1 else ALONE
        return Choice(first[0], EQUAL if len(known) > 1 else alone, told, counted)

    def _verdicts(
        self, texts: Sequence[Candidate], read: Mapping[str, Sequence[WrittenText]]
    ) -> tuple[list[float | None], dict[str, Any], list[str]]:
        """How many verdicts each text has, None where none has any; what was said; what of it names no text.

        Of equal texts the first has what names any of them, and the others have none.
        """
        places = [at if one.place is None else one.place for at, one in enumerate(texts)]
        words = [one.text.text for one in texts]
        same = [words.index(one) for one in words]
        count = max(self.count, len(texts), texts[0].of)
        said: list[dict[str, Any]] = []
        counted: list[str] = []
        votes = Counter[int]()
        for judge, verdicts in read.items():
            named = Counter[int]()
            for one in verdicts:
                verdict = answers.extracted(self.verdict, one.answer)
                place = self._named(judge, verdict, count)
                text = places.index(place) if place in places else None
                said.append({"judge": judge, "verdict": verdict, "text": text})
                if text is None:
                    counted.append(f"{OUTSIDE if place is None else GONE} in {judge}")
                else:
                    named[same[text]] += 1
            if self.orders and named:
                (first, most), *others = named.most_common()
                split = bool(others) and others[0][1] == most
                counted += [f"{SPLIT} in {judge}"] * split
                named = Counter[int]() if split else Counter([first])
            votes += named
        scores = [float(votes[at]) if votes and first == at else None for at, first in enumerate(same)]
        return scores, {"verdicts": said}, counted

    def _named(self, judge: str, verdict: str | None, count: int) -> int | None:
        """The place of the text that a verdict names, None where it names none."""
        own = self.orders[judge] if isinstance(self.names, dict) else self.names
        names = own or [str(number + 1) for number in range(count)]
        return names.index(verdict) if verdict in names else None
