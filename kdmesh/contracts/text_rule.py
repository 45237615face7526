"""The interface of a rule over texts: of several that answer one prompt it makes one, or says that there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kdmesh.contracts.filter import WrittenText


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the texts that answer a prompt.

    Attributes:
        text: what was written; ``text.draw`` tells the texts of one stream apart.
        stream: the stream that it is of.
        agent: who wrote it.
        score: what the metric says of it that the rule names, more being better; None where the rule's offer does not
            need it, and where the metric does not count this text.
        place: which of the texts it is that :meth:`TextRule.setup` was told of, from 0: where a stream has none to this
            prompt, because its own rule abstained, no candidate stands there. None: as it is listed.
        of: how many texts there would be if none was missing.
    """

    text: WrittenText
    stream: str
    agent: str
    score: float | None = None
    place: int | None = None
    of: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """What a rule makes of the texts that answer one prompt.

    Attributes:
        chosen: the place of the chosen text among the candidates; None: the rule abstains.
        why: the reason for which it abstains, or rejects none, under which that is counted: a few words, the same for
            each prompt.
        told: what is kept beside the text, plain data: votes, dissent.
        counted: what else is counted, by a few words each: `ties broken`.
        text: what stands in place of the chosen text, where the rule makes one; None: the chosen text as it is.
        rejected: the place of a text that is worse than the chosen one, for streams of pairs; None: none is.
    """

    chosen: int | None
    why: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)
    counted: Sequence[str] = ()
    text: str | None = None
    rejected: int | None = None


class TextRule:
    """Makes one text of several. Made as ``factory(**config)`` of its offer, on the host where the texts meet.

    It is called prompt by prompt. Equal texts must give equal choices: a rule holds no state, draws nothing, and does
    not look at anything else.
    """

    def setup(self, columns: Collection[str], sources: Sequence[str], read: Collection[str]) -> None:
        """Look at what there is, once, before anything is chosen; raise ValueError for what cannot work.

        ``columns``: the names of the data's columns; ``sources``: the stream of each candidate, in their order;
        ``read``: of each text that is read beside them the name under which it is. A :class:`MeshError` with `where`,
        a setting of the rule, and `instead` is told as it is.
        """

    def choose(self, texts: Sequence[Candidate], read: Mapping[str, Sequence[WrittenText]]) -> Choice:
        """Choose among the texts that answer one prompt.

        ``texts``: in the order of the mesh's `consensus_of`, those of a stream by draw; at least one. Where the rule of
        such a stream abstained, its text is missing. ``read``: what the streams that are read say to this prompt, by
        the name that the mesh gives each; nothing where the rule of such a stream abstained.
        """
        raise NotImplementedError(f"{type(self).__name__} must choose a text")  # the one abstract method
