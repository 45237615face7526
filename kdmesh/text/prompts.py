"""What a language model is asked with, in tokens, and which tokens end what it writes."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError
from kdmesh.streams.texts import AT_ONCE, LEARNED, Sample, Texts
from kdmesh.streams.tokens import Collected
from kdmesh.text.template import given
from kdmesh.text.views import PromptView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdmesh.streams.table import Table
    from kdmesh.streams.tokens import Encoded, Row
    from kdmesh.text.encoder import Encoder


KEPT = 2**15
"""Prompts of which the tokens are kept in memory: of a set that is not in memory there may be any number."""


class Asking:
    """The prompts of a table's texts as one agent is asked them, in tokens; each is made when it is asked for.

    ``view``: the template of its own prompt, None: as they are; ``agent``: whose it is; ``where``: in the mesh the
    template stands, by default as the agent's view.
    """

    def __init__(self, encoder: Encoder, table: Table, view: str | None, agent: str, where: str = "") -> None:
        assert isinstance(table.x, Texts)
        self._encoder, self._samples, self._table, self._agent = encoder, table.x, table, agent
        self._view = None if view is None else PromptView(view, where or f"agents.{agent}.view.prompt")
        self._known: dict[int, list[int]] = {}

    @property
    def names(self) -> set[str]:
        """What the template names."""
        return set() if self._view is None else self._view.names

    def __call__(self, row: int) -> list[int]:
        """Of the sample in a row of the table. MeshError, which names it, where it asks nothing."""
        if row not in self._known:
            if len(self._known) == KEPT:
                self._known.clear()
            self._known[row] = asked(self._encoder, self.seen(row))
        return self._known[row]

    def having_read(self, row: int, read: Mapping[str, Any]) -> list[int]:
        """The same where the template may also name what is ``read``."""
        return asked(self._encoder, self.seen(row, read))

    def before(self, row: int, given: Row) -> Row:
        """A sample that the data answer, with what the agent is asked in place of its prompt.

        ``given``: the sample as it is. What is learned of it stays, token by token. MeshError, which names the sample,
        where that cannot be, or where both together are longer than what the agent reads.
        """
        sample, most = self._samples[row], self._encoder.max_length
        if not given.units:
            return given
        if sample.messages is not None:
            found, report = self._encoder.encode(Texts([self.seen(row)]))
            told, length = next(found.samples()), report.longest
        else:
            first = given.units[0] + 1
            lead = given.ids[:first] if sample.prompt is None and self._encoder.begin is None else []
            asked_with = asked(self._encoder, self.seen(row)) + lead
            units = [unit - first + len(asked_with) for unit in given.units]
            told = replace(given, ids=asked_with + given.ids[first:], units=units)
            length = len(told.ids)
        at, where = sample.at or f"sample {row}", self._view.where if self._view else ""
        if length > most and (len(told.ids) > most or told.targets != given.targets):
            what = f"{at}: as {self._agent} is told it, it has {length} tokens, more than the {most} that it reads"
            instead = "a larger text.max_length (and max_length of the model), or a shorter prompt"
            raise MeshError(what, where=where, instead=instead)
        if told.targets != given.targets:
            what = f"{at}: after the prompt that {self._agent} is told, its answers become other tokens"
            raise MeshError(
                what, where=where, instead="a template that leaves the turns before the last one as they are"
            )
        return told

    def seen(self, row: int, read: Mapping[str, Any] | None = None) -> Sample:
        """The sample in a row, with the agent's own prompt if it has one; see :meth:`having_read`."""
        sample = self._samples[row]
        if self._view is None or sample.fault:
            return sample
        return self._view(sample, self._table.named(row) | dict(read or {}))


def told(encoder: Encoder, table: Table, view: str, agent: str, rows: Sequence[int], given: Encoded) -> Encoded:
    """Samples in ``rows`` of a table, ``given`` as they are, as an agent is told them: see :meth:`Asking.before`."""
    asking, found = Asking(encoder, table, view, agent), Collected(given.mapped)
    every = zip(rows, given.samples(), strict=True)
    while some := [asking.before(row, one) for row, one in islice(every, AT_ONCE)]:
        found.add(some)
    return found.encoded(given.pad, given.pack)


def asked(encoder: Encoder, sample: Sample) -> list[int]:
    """The tokens that a model is asked with for a sample, as training has them before what is learned.

    Those of its prompt, after the token that begins a text; of a chat those of its turns, without a last one of
    the assistant's, and of the generation prompt. MeshError, which names the sample, where it asks nothing.
    """
    at = sample.at or "a sample"
    if sample.fault:
        raise MeshError(sample.fault, instead="a sample that can be read, or a stream without it")
    if sample.messages is not None:
        return _chat(encoder, sample, at)
    if sample.prompt is None:
        raise MeshError(f"{at} has no prompt to answer", instead="data with `prompt` or `messages`, or a `view.prompt`")
    begin = [] if encoder.begin is None else [encoder.begin]
    ids = [*begin, *encoder.tokenizer(sample.prompt, add_special_tokens=False)["input_ids"], *encoder.asked_until]
    if len(ids) == len(encoder.asked_until):
        what = f"{at}, field 'prompt': the tokenizer leaves no token of it, and none begins a text"
        raise MeshError(what, instead="a prompt that it knows")
    return ids


def _chat(encoder: Encoder, sample: Sample, at: str) -> list[int]:
    if not encoder.tokenizer.chat_template:
        raise MeshError(
            f"{at}, field 'messages': the tokenizer has no chat template",
            instead="a tokenizer with one, or data with `prompt` and `text`",
        )
    turns, tools = given(sample)
    last = len(turns) - (turns[-1]["role"] == LEARNED)
    try:
        text = encoder.tokenizer.apply_chat_template(
            turns[:last], tools=tools, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # of jinja: the template refuses these turns, or is broken
        raise MeshError(
            f"{at}, field 'messages': the chat template refuses the turns before the answer: {error}",
            instead="the roles and the order of turns that the template knows",
        ) from None
    return list(encoder.tokenizer(str(text), add_special_tokens=False)["input_ids"])


def ends(encoder: Encoder, sample: Sample) -> frozenset[int]:
    """The tokens that end a text: the tokenizer's EOS, and what its chats end an answer with, where ``sample`` is one.

    They are those that training puts there, so that a model that has learned to stop does.
    """
    found = {encoder.tokenizer.eos_token_id} - {None}
    if sample.messages is not None:
        said = sample if sample.answered else replace(sample, messages=(*sample.messages, (LEARNED, "a")))
        last = encoder.encode(Texts([said]))[0].endings()[-1:].tolist()
        found |= {one for one in last if encoder.is_special(one)}
    return frozenset(found)
