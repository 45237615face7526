"""What a language model reads of a sample, in tokens: those of the whole text, and which of them are learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdmesh.streams.texts import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kdmesh.streams.texts import Sample
    from kdmesh.text.template import Chat

Span = tuple[int, int]
Tokens = tuple[list[int], list[Span]]
"""Ids and offsets, as a tokenizer gives them."""

LEADS = ("\n", ".", "a")
"""What a text may follow without changing how it is cut into tokens."""


@dataclass
class Piece:
    """Tokens; ``spans``: the characters of the sample's learned words that each is about, None where none is learned.

    ``open``: the learned words at the end lack a token that ends them.
    """

    ids: list[int]
    spans: list[Span | None]
    open: bool = False


def plain(text: str, tokens: Tokens) -> Piece:
    """A text of which every token is learned."""
    return Piece(tokens[0], list(partition(tokens[1], len(text))))


def answer(sample: Sample, prompt: Tokens, text: Tokens, whole: Tokens, tokenizer: Any, where: str) -> Piece:
    """A prompt and what is learned after it: the tokens that a model is asked with, and tokens that go on from there.

    Those of the whole text, if they begin with the prompt's own; else those of the text alone, if both together say
    the same characters; else those that the text has after something else. Raises Unreadable where nothing does.
    """
    size, asked = len(sample.prompt or ""), len(prompt[0])
    rest: Tokens | None
    if whole[0][:asked] == prompt[0] and len(whole[0]) > asked:
        rest = whole[0][asked:], [(max(0, start - size), max(0, end - size)) for start, end in whole[1][asked:]]
    else:
        said = _said(tokenizer, whole[0])
        ways = _goes_on(sample.text, text, tokenizer)
        rest = next((way for way in ways if _said(tokenizer, prompt[0] + way[0]) == said), None)
    if rest is None:
        raise Unreadable(
            f"{sample.at or 'a sample'}, field 'prompt': the tokenizer makes other tokens of it alone than before the "
            "text, so that a model would be asked with tokens that it never learned to go on from",
            where=where,
            instead="prompts without a space at their end, and texts that begin with it",
        )
    learned = list(partition(rest[1], len(sample.text)))
    return Piece(prompt[0] + rest[0], [*[None] * asked, *learned], open=True)


def _goes_on(text: str, alone: Tokens, tokenizer: Any) -> Iterator[Tokens]:
    """Ways to cut a text into tokens: by itself, and after something that is then left out."""
    yield alone
    for lead in LEADS:
        before = tokenizer(lead, add_special_tokens=False)["input_ids"]
        found = tokenizer(lead + text, add_special_tokens=False, return_offsets_mapping=True)
        ids, at = found["input_ids"], len(before)
        if before and ids[:at] == before and len(ids) > at:
            yield ids[at:], [(max(0, start - 1), max(0, end - 1)) for start, end in found["offset_mapping"][at:]]


def _said(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def chat(written: Chat, tokens: Tokens, special: Callable[[int], bool]) -> Piece:
    """A conversation: every token that has a character of what is learned, and the special token that ends a turn."""
    ids, offsets = tokens
    about = _about(written, offsets)
    spans: list[Span | None] = [None] * len(ids)
    open_end, told, at = False, 0, 0
    for begin, end in written.learned:
        added = (begin, begin)  # a token without characters: some tokenizers begin words with one
        while at < len(ids) and offsets[at][1] <= begin and (written.exact or offsets[at] != added):
            at += 1
        first = at
        while at < len(ids) and offsets[at][0] < end:
            at += 1
        last = at + _ending(written.text, ids[at:], offsets[at:], special)
        open_end = at > first and last == at and not special(ids[at - 1])
        if not written.exact:
            at = last
        for number in range(first, at):
            spans[number] = about.get(number, (told, told))
            told = (spans[number] or (0, told))[1]
    rest = offsets[at][0] if at < len(offsets) else len(written.text)
    return Piece(ids, spans, open_end and not written.text[rest:].strip())


def _about(written: Chat, offsets: list[Span]) -> dict[int, Span]:
    """The characters of the sample that tokens are about, of those that have some."""
    found: dict[int, Span] = {}
    at = 0
    for words in sorted(written.words):
        while at < len(offsets) and offsets[at][1] <= words.start:
            at += 1
        first = at
        while at < len(offsets) and offsets[at][0] < words.end:
            at += 1
        within = [
            (words.lead + max(0, start - words.start), words.lead + min(end, words.end) - words.start)
            for start, end in offsets[first:at]
        ]
        for number, (start, end) in enumerate(partition(within, words.length), first):
            found[number] = words.told + start, words.told + end
        at -= at > first  # the last token may have characters of the words that follow
    return found


def _ending(text: str, ids: list[int], offsets: list[Span], special: Callable[[int], bool]) -> int:
    """How many tokens after learned words end them: through the first special one, if only space is before it."""
    for number, (token, (start, end)) in enumerate(zip(ids, offsets, strict=True)):
        if special(token):
            return number + 1
        if text[start:end].strip():
            return 0
    return 0


def partition(offsets: list[Span], length: int) -> list[Span]:
    """Spans of tokens that divide ``0 .. length`` among them, in order.

    What stands between two tokens (space, mostly) belongs to the second; a character that several tokens make up, to
    the last of them: where a span ends, all before it has been said.
    """
    ends: list[int] = []
    for number, (_, end) in enumerate(offsets):
        following = offsets[number + 1][0] if number + 1 < len(offsets) else end
        ends.append(max(ends[-1] if ends else 0, min(end, following)))
    if ends:
        ends[-1] = length
    return list(zip([0, *ends], ends, strict=False))
