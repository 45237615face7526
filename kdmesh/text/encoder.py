"""Texts as one agent's tokenizer gives them: tokens, what of them is learned, and what did not fit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from kdmesh.errors import MeshError, nearest
from kdmesh.streams.texts import Sample, Texts
from kdmesh.streams.tokens import Encoded, Row
from kdmesh.text.template import Segment, conversation
from kdmesh.text.tokenizers import dumps, separator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORD = re.compile(r"\w+|[^\w\s]")
"""What gets a tag: the same words whatever the tokenizer, so that agents align word by word."""

NO_TAG = "O"
"""The tag of a word in no span."""

NOTHING_LEFT = "the tokenizer leaves no token of it"
CHUNK = 1024  # samples that are tokenised at a time
Offsets = list[tuple[int, int]]


@dataclass
class Report:
    """What became of the samples. Numbers of rows are positions in the texts that were encoded.

    ``characters``: those that units are about, so that a sum of losses in nats over ``characters * ln 2`` is in bits
    per character; ``longest``: tokens of the longest sample, before any was cut; ``lost``: words to tag without a token
    of its own, so that a neighbour of it answers.
    """

    samples: int = 0
    truncated: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)  # over the limit, to be left out; encoded all the same, cut
    characters: int = 0
    longest: int = 0
    lost: int = 0


class Encoder:
    """One agent's way from texts to tokens.

    ``task``: `classification`, `token_classification` or `language_modelling`; ``over``: what happens to samples of
    more than ``max_length`` tokens: `truncate`, `drop` or `refuse`; ``tags``: the tags of token classification, `O`
    among them; ``pack``: samples share rows of ``max_length`` tokens.

    A language model reads ``[BOS] prompt text [EOS]``, or ``[BOS] text`` where there is no prompt; as BOS the
    tokenizer's own, else its EOS, else none: then the first token is not learned. Of messages it reads what the chat
    template writes, and learns the assistant's words up to the special token that ends them. Prompt, text and turns are
    tokenised apart, as they are when the model generates: no token crosses from what is learned to what is not.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        task: str,
        *,
        max_length: int,
        over: str = "truncate",
        tags: Sequence[str] = (),
        agent: str = "",
        pack: bool = False,
    ) -> None:
        self.tokenizer: Any = tokenizer
        self.task, self.max_length, self.over, self.tags, self.pack = task, max_length, over, list(tags), pack
        self.where = f"agents.{agent}" if agent else "agents"
        self._make: Callable[[list[Sample], Report], Iterator[tuple[Row, bool]]] = {
            "classification": self._classified,
            "token_classification": self._tagged,
            "language_modelling": self._modelled,
        }[task]
        self.vocabulary = len(tokenizer)
        self.pad = self._pad()
        self._separator = separator(tokenizer)
        special = self.tokenizer.num_special_tokens_to_add() if task != "language_modelling" else 1
        if max_length <= special:
            self._refuse(
                f"max_length {max_length} leaves no room beside {special} special tokens", "a larger text.max_length"
            )
        if task == "token_classification" and NO_TAG not in self.tags:
            self._refuse(f"tags {self.tags} without {NO_TAG!r}, the tag of a word in no span", "labels of the data set")
        self._special = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        self.key = self._key()

    @property
    def facts(self) -> dict[str, Any]:
        """What a model is built for: how many tokens there are, and which pad and separate."""
        return {"vocabulary": self.vocabulary, "pad": self.tokenizer.pad_token_id, "separator": self._separator}

    @property
    def begin(self) -> int | None:
        """The token before a text that is modelled: the tokenizer's BOS, else its EOS. Chats bring their own."""
        if self.task != "language_modelling":
            return None
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return eos if bos is None else bos

    def words(self) -> list[str]:
        """Every token as text, with the space it begins with; one that is part of a character is no text of its own."""
        before = self.tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        lead = len(self.tokenizer.decode(before))  # alone, a token of some tokenizers loses its first space
        return [self.tokenizer.decode([*before, number])[lead:] for number in range(self.vocabulary)]

    def files(self) -> dict[str, str]:
        """The tokenizer's files by name, for processes that cannot read or make it themselves."""
        return dumps(self.tokenizer)

    def encode(self, texts: Texts) -> tuple[Encoded, Report]:
        """Return the samples as tokens, a sample for each, and what had to be cut.

        A sample that cannot be encoded is a MeshError that names agent, field and sample.
        """
        report = Report(samples=len(texts))
        rows: list[Row] = []
        for start in range(0, len(texts), CHUNK):
            for row, cut in self._make(list(texts[start : start + CHUNK]), report):
                if cut:
                    (report.dropped if self.over == "drop" else report.truncated).append(len(rows))
                report.characters += sum(end - begin for begin, end in row.spans)
                rows.append(row)
        return Encoded.of(rows, self.pad, pack=self.max_length if self.pack else None), report

    def _classified(self, samples: list[Sample], report: Report) -> Iterator[tuple[Row, bool]]:
        for sample in samples:
            self._needs_text(sample, "prompt", "messages")
        for ids, _, cut in self._with_specials(samples, report):
            yield Row(ids), cut

    def _tagged(self, samples: list[Sample], report: Report) -> Iterator[tuple[Row, bool]]:
        for sample in samples:
            self._needs_text(sample, "pair", "prompt", "messages")
            if sample.spans is None:
                self._refuse_sample(sample, "spans", "no spans to tag words by", "data with `spans`")
        for sample, (ids, offsets, cut) in zip(samples, self._with_specials(samples, report), strict=True):
            words = [match.span() for match in WORD.finditer(sample.text)]
            units, lost = _first_tokens(words, offsets, cut)
            if not units and not cut:
                self._refuse_sample(sample, "text", NOTHING_LEFT, "text that it knows")
            report.lost += lost
            yield Row(ids, units, self._tags(sample, words)[: len(units)], words[: len(units)]), cut

    def _modelled(self, samples: list[Sample], report: Report) -> Iterator[tuple[Row, bool]]:
        pieces = [self._segments(sample) for sample in samples]
        try:
            encoded = self._tokens([segment.text for segments in pieces for segment in segments])
        except (TypeError, UnicodeError):
            self._name_unreadable(samples)
        for sample, segments in zip(samples, pieces, strict=True):
            row = self._learned(sample, segments, [next(encoded) for _ in segments])
            report.longest = max(report.longest, len(row.ids))
            cut = self._is_over(sample, len(row.ids))
            if cut:
                keep = sum(unit + 1 < self.max_length for unit in row.units)
                row = Row(row.ids[: self.max_length], row.units[:keep], row.targets[:keep], row.spans[:keep])
            yield row, cut

    def _segments(self, sample: Sample) -> list[Segment]:
        if sample.messages is not None:
            return conversation(self.tokenizer, sample, self.where)
        for name in ("pair", "spans"):
            if getattr(sample, name) is not None:
                self._refuse_sample(sample, name, "a language model reads none", "data without it, or another task")
        if not sample.text:
            self._refuse_sample(sample, "text", "an empty text", "text in every sample")
        prompt = [] if sample.prompt is None else [Segment(sample.prompt, False)]
        return [*prompt, Segment(sample.text, True)]

    def _learned(self, sample: Sample, segments: list[Segment], tokens: list[tuple[list[int], Offsets]]) -> Row:
        """A language model's row, uncut: a unit for each learned token that another stands before."""
        row = Row([])
        if sample.messages is None and self.begin is not None:
            row.ids.append(self.begin)
        told, open_turn = 0, False  # characters learned so far; whether the last words still lack an end
        for segment, (ids, offsets) in zip(segments, tokens, strict=True):
            if segment.learned:
                spans = [(told + start, told + end) for start, end in _partition(offsets, len(segment.text))]
                if not ids:
                    self._refuse_sample(sample, _told_by(sample), NOTHING_LEFT, "text that it knows")
                told, open_turn, count = told + len(segment.text), True, len(ids)
            else:
                count = self._ending(segment.text, ids, offsets) if open_turn else 0
                open_turn = open_turn and not count and not segment.text.strip()
                spans = [(told, told)] * count
            self._add(row, ids, count, spans)
        end = self.tokenizer.eos_token_id
        if open_turn and end is not None and (sample.messages is not None or sample.prompt is not None):
            self._add(row, [end], 1, [(told, told)])
        return row

    @staticmethod
    def _add(row: Row, ids: list[int], count: int, spans: Offsets) -> None:
        """Append tokens, of which the first ``count`` are learned; the very first of a row has nothing before it."""
        at = len(row.ids)
        row.ids += ids
        skip = int(at == 0)
        row.units += range(at + skip - 1, at + count - 1)
        row.targets += ids[skip:count]
        row.spans += spans[skip:count]

    def _ending(self, text: str, ids: list[int], offsets: Offsets) -> int:
        """How many tokens after learned words end them: through the first special one, if only space is before it."""
        for number, (token, (start, end)) in enumerate(zip(ids, offsets, strict=True)):
            if token in self._special:
                return number + 1
            if text[start:end].strip():
                return 0
        return 0

    def _with_specials(self, samples: list[Sample], report: Report) -> Iterator[tuple[list[int], Offsets, bool]]:
        """Ids and offsets of each sample with the tokenizer's special tokens, and whether it was cut."""
        found: dict[int, tuple[list[int], Offsets, bool]] = {}
        for paired in (False, True):
            group = [number for number, sample in enumerate(samples) if (sample.pair is not None) == paired]
            least = self.tokenizer.num_special_tokens_to_add(pair=paired)
            whole = self._given([samples[number] for number in group], paired)
            over: list[int] = []
            for number, (ids, offsets) in zip(group, whole, strict=True):
                report.longest = max(report.longest, len(ids))
                if len(ids) <= least:
                    self._refuse_sample(samples[number], "text", NOTHING_LEFT, "text that it knows")
                if self._is_over(samples[number], len(ids)):
                    over.append(number)
                found[number] = ids, offsets, False
            shorter = self._given(
                [samples[number] for number in over], paired, truncation=True, max_length=self.max_length
            )
            found.update((number, (*pair, True)) for number, pair in zip(over, shorter, strict=True))
        return (found[number] for number in range(len(samples)))

    def _given(self, samples: list[Sample], paired: bool, **settings: Any) -> list[tuple[list[int], Offsets]]:
        if not samples:
            return []
        pairs = ([sample.pair for sample in samples],) if paired else ()
        try:
            return list(self._tokens([sample.text for sample in samples], *pairs, add_special_tokens=True, **settings))
        except (TypeError, UnicodeError):
            self._name_unreadable(samples)
        finally:
            self.tokenizer.backend_tokenizer.no_truncation()  # a setting of this call would stay, and be saved

    def _tokens(self, *texts: Sequence[str | None], **settings: Any) -> Iterator[tuple[list[int], Offsets]]:
        if not texts[0]:
            return iter(())
        found = self.tokenizer(
            *map(list, texts),
            **{"add_special_tokens": False, "truncation": False, **settings},
            padding=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return zip(found["input_ids"], found["offset_mapping"], strict=True)

    def _tags(self, sample: Sample, words: Offsets) -> list[int]:
        """The tag of each word: of the span that its first character is in, else `O`."""
        number = {tag: i for i, tag in enumerate(self.tags)}
        spans = sorted(sample.spans or ())
        for start, end, tag in spans:
            if tag not in number:
                self._refuse_sample(sample, "spans", f"unknown tag {tag!r}", nearest(tag, self.tags, "tags"))
            if not 0 <= start < end <= len(sample.text):
                what = f"({start}, {end}) in a text of {len(sample.text)} characters"
                self._refuse_sample(sample, "spans", what, "characters of the text, end exclusive")
        return [
            next((number[tag] for start, end, tag in spans if start <= begin < end), number[NO_TAG])
            for begin, _ in words
        ]

    def _is_over(self, sample: Sample, length: int) -> bool:
        if length > self.max_length and self.over == "refuse":
            what = f"{length} tokens where max_length is {self.max_length}"
            self._refuse_sample(
                sample, _told_by(sample), what, "a larger text.max_length, or `over: truncate` or `drop`"
            )
        return length > self.max_length

    def _needs_text(self, sample: Sample, *unread: str) -> None:
        for name in unread:
            if getattr(sample, name) is not None:
                what = f"the task {self.task} reads none"
                self._refuse_sample(sample, name, what, "data without it, or task: language_modelling")
        for name in ("text", "pair"):
            value = getattr(sample, name)
            if value is not None and not value.strip():
                self._refuse_sample(sample, name, "an empty text", "text in every sample")

    def _name_unreadable(self, samples: list[Sample]) -> NoReturn:
        for sample in samples:
            for name in ("text", "pair", "prompt", "messages"):
                value = getattr(sample, name)
                try:
                    json.dumps(value, ensure_ascii=False).encode()
                except UnicodeEncodeError:
                    self._refuse_sample(sample, name, "half of a surrogate pair", "well-formed Unicode")
        self._refuse("the tokenizer refuses these samples", "texts")

    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        if pad is None and self.task != "language_modelling":
            self._refuse(
                "the tokenizer has no pad token",
                "a tokenizer with one, or `pad_token_id` in the model's config: a classifier's inputs are padded",
            )
        if pad is None:
            pad = self.tokenizer.eos_token_id  # masked, and no unit: any token will do
        return 0 if pad is None else int(pad)

    def _key(self) -> str:
        """Equal keys give equal tokens."""
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())
        backend |= {"truncation": None, "padding": None}
        names = {name: str(token) for name, token in self.tokenizer.special_tokens_map.items()}
        settings = [self.task, self.max_length, self.over, self.tags, self.pack, self.pad]
        told = json.dumps([backend, names, self.tokenizer.chat_template, settings], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def _refuse_sample(self, sample: Sample, name: str, what: str, instead: str) -> NoReturn:
        self._refuse(f"{sample.at or 'a sample'}, field {name!r}: {what}", instead)

    def _refuse(self, what: str, instead: str) -> NoReturn:
        raise MeshError(what, where=self.where, instead=instead)


def _told_by(sample: Sample) -> str:
    """The field that holds what is learned."""
    return "text" if sample.messages is None else "messages"


def _partition(offsets: Offsets, length: int) -> Offsets:
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


def _first_tokens(words: Offsets, offsets: Offsets, cut: bool) -> tuple[list[int], int]:
    """The first token of each word up to where a text is cut, and how many words have none of their own.

    A token that stands for several words is the first of each; for a word that the tokenizer drops, the token after it
    answers, or the last one: whatever their tokenizers, agents have the same words of every text that is not cut.
    """
    real = [(start, end, number) for number, (start, end) in enumerate(offsets) if start < end]
    found: list[int] = []
    at = lost = 0
    for begin, stop in words:
        while at < len(real) and real[at][1] <= begin:
            at += 1
        if not real or (at == len(real) and cut):
            break
        lost += at == len(real) or real[at][0] >= stop
        found.append(real[min(at, len(real) - 1)][2])
    return found, lost
