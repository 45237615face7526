"""A conversation as its chat template writes it, cut where the learned words begin and end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdmesh.errors import MeshError

if TYPE_CHECKING:
    from kdmesh.streams.texts import Sample

LEARNED = "assistant"
"""The role whose turns are learned."""

MARK = "\ue000{}\ue001"  # of Unicode's private use: stands in no conversation


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of what a language model reads, with tokens of its own: no token crosses its ends."""

    text: str
    learned: bool


def conversation(tokenizer: Any, sample: Sample, where: str) -> list[Segment]:
    """Return a sample's messages as the tokenizer's template writes them: what is learned between what is not.

    The template is applied twice, the second time with marks for the learned words: what it writes around them stands
    between the marks, whatever it does with other turns. A template that trims the words is followed; one that changes
    them, or writes around them what depends on them, is a MeshError, and so is a tokenizer without a template.
    """
    messages = sample.messages or ()
    if not tokenizer.chat_template:
        raise MeshError(
            f"{sample.at}, field 'messages': the tokenizer has no chat template",
            where=where,
            instead="a tokenizer with one, or data with `prompt` and `text` instead of `messages`",
        )
    words = [content for role, content in messages if role == LEARNED]
    if not words:
        raise MeshError(
            f"{sample.at}, field 'messages': no turn of role {LEARNED!r}",
            where=where,
            instead="at least one: its words are learned",
        )
    if not all(content.strip() for content in words):
        raise MeshError(
            f"{sample.at}, field 'messages': an empty turn of role {LEARNED!r}",
            where=where,
            instead="words in every turn that is learned",
        )
    marks = [MARK.format(number) for number in range(len(words))]
    written = _render(tokenizer, sample, words, where)
    marked = _render(tokenizer, sample, marks, where)
    segments: list[Segment] = []
    at = 0
    for mark, text in zip(marks, words, strict=True):
        around, found, marked = marked.partition(mark)
        start = at + len(around)
        text = text if written.startswith(text, start) else text.strip()
        if not found or not text or not written.startswith(around, at) or not written.startswith(text, start):
            break
        segments += [Segment(around, False), Segment(text, True)]
        at = start + len(text)
    else:
        if written[at:] == marked:
            return [*segments, Segment(marked, False)]
    raise MeshError(
        f"{sample.at}, field 'messages': the chat template changes the words of role {LEARNED!r}, "
        "so that they cannot be told from what it writes around them",
        where=where,
        instead="a template that writes `content` as it is, or data with `prompt` and `text`",
    )


def _render(tokenizer: Any, sample: Sample, words: list[str], where: str) -> str:
    """What the template writes with these words in the learned turns."""
    given = iter(words)
    turns = [
        {"role": role, "content": next(given) if role == LEARNED else content}
        for role, content in sample.messages or ()
    ]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False))
    except Exception as error:  # of jinja: the template refuses these roles, or is broken
        raise MeshError(
            f"{sample.at}, field 'messages': the chat template refuses them: {error}",
            where=where,
            instead="the roles and the order of turns that the template knows",
        ) from None
