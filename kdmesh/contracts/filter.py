"""The interface of a filter: it says which of the texts that an agent wrote are learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class WrittenText:
    """One text that an agent wrote as the answer to a prompt.

    Attributes:
        sample: the number of the prompt's sample in the data; equal ones are answers to the same prompt.
        draw: which of the texts to this prompt it is, from 0.
        prompt: what the data ask; of a chat the words of its turns before the answer, a line each.
        text: the answer, without the token that ended it, and without special tokens.
        tokens: how many tokens of the writer the answer has, without the one that ended it: 0 for an empty answer.
        ended: whether the writer ended it; False where it was cut at `max_new_tokens`.
        given: what the data answer, "" where they do not.
        columns: the sample's columns of the data, by name.
        loss: mean of ``-log p`` over the tokens of the answer, with that which ended it, in nats, by the agent that the
            mesh names with `of`; None where the filter's offer does not need it.
        at: where the sample came from, for messages: `train.jsonl, line 7`.
        marks: what begins and ends reasoning, as `text.reasoning` says; None: the text is all answer.
        label: where texts are classified, the class as which it would be learned; "" where it has none.
        answers: the class that each agent which the mesh names with `of` gives it, by the agent's name; empty where the
            filter's offer does not need it.
        reward: how right it is, by the stream's verifiers; None where they do not know, and where the filter's offer
            does not need it.
    """

    sample: int
    draw: int
    prompt: str
    text: str
    tokens: int
    ended: bool
    given: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    loss: float | None = None
    at: str = ""
    marks: tuple[str, str] | None = None
    label: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    reward: float | None = None

    @property
    def reasoning(self) -> str:
        """What the text says before its answer, with the marks of `text.reasoning`; "" where there are none."""
        return parted(self.text, self.marks)[0]

    @property
    def answer(self) -> str:
        """What it says after its reasoning; all of it where there is none, "" where that never ends."""
        return parted(self.text, self.marks)[1]

    @property
    def known(self) -> str:
        """The right answer: the class as which a text would be learned, or what the data answer after reasoning."""
        return self.label or parted(self.given, self.marks)[1]


def parted(text: str, marks: tuple[str, str] | None) -> tuple[str, str]:
    """Reasoning and answer of a text: it ends with the last end mark; a text that begins one and has none is reasoning.

    With an empty first mark a text without an end mark is an answer.
    """
    if marks is None:
        return "", text
    begin, end = marks
    before, mark, after = text.rpartition(end)
    if mark:
        return before + mark, after
    return (text, "") if begin and text.lstrip().startswith(begin) else ("", text)


class Filter:
    """Says which texts are kept. Made as ``factory(**config)`` of its offer, on the host where texts are written.

    It is called with all texts that are written together, less those that the filters before it have dropped: those of
    one update with `refresh: step`, of all prompts with `refresh: once`. Equal texts must give equal answers: a filter
    holds no state, draws nothing, and does not look at anything else.
    """

    def setup(self, columns: Collection[str]) -> None:
        """Look at what there is, once, before anything is written; raise ValueError for what cannot work.

        ``columns``: the names of the data's columns.
        """

    def keep(self, texts: Sequence[WrittenText]) -> Sequence[bool]:
        """Whether each of the texts is kept, in their order. At least one is given."""
        raise NotImplementedError(f"{type(self).__name__} must say which texts it keeps")  # the one abstract method

    def scores(self, texts: Sequence[WrittenText]) -> Sequence[float] | None:
        """How good each of the texts is, more being better, for a filter that ranks those of a prompt: where it makes
        pairs, the best is chosen over the worst. NaN: the text is in none. None: it ranks nothing.
        """
