"""Texts as one agent's tokenizer gives them: tokens, what of them is learned, and what did not fit."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from kdmesh.errors import MeshError, nearest
from kdmesh.streams.texts import HIDDEN, Sample, Texts, Unreadable, answers_of, size_of
from kdmesh.streams.tokens import Collected, Encoded, Row, side_by_side
from kdmesh.text import pieces
from kdmesh.text.heads import BI, CAUSAL, CROSS, LISTS, SEQUENCE, TOKEN, head_of
from kdmesh.text.template import Chat, Template, given
from kdmesh.text.tokenizers import dumps, numbered, separator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORD = re.compile(r"\w+|[^\w\s]")
"""What gets a tag: the same words whatever the tokenizer, so that agents align word by word."""

NO_TAG = "O"
"""The tag of a word in no span."""

NOTHING_LEFT = "the tokenizer leaves no token of it"
CHUNK = 1024  # samples that are tokenised at a time
CHARACTERS = 2**18  # and no more of them: what a tokenizer says of each takes hundreds of bytes
Offsets = list[tuple[int, int]]
Made = tuple[Row, bool] | Unreadable
"""A sample's row and whether it was cut, or why there is none."""


@dataclass
class Report:
    """What became of the samples. Numbers of rows are positions in the texts that were encoded.

    ``unreadable``: samples that are left out, each with the reason; ``empty``: samples that ask for no answer, such as
    those whose answers were cut away, of which so many are prompts ``alone``; ``tokens``: of all samples, of which so
    many are ``unknown``; ``unread``: how many samples have something that the chat template leaves out.

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
    unreadable: dict[int, str] = field(default_factory=dict)
    empty: list[int] = field(default_factory=list)
    alone: int = 0
    tokens: int = 0
    unknown: int = 0
    unread: Counter[str] = field(default_factory=Counter)


class Encoder:
    """One agent's way from texts to tokens.

    ``task``: the name of one that texts are read for; ``embeds``: the model reads a query and its candidates each
    alone, and not in pairs; ``over``: what happens to samples of
    more than ``max_length`` tokens: `truncate`, `drop` or `refuse`; ``tags``: the tags of token classification, `O`
    among them; ``pack``: samples share rows of ``max_length`` tokens.

    A language model reads ``[BOS] prompt text [EOS]``, or ``[BOS] text`` where there is no prompt; as BOS the
    tokenizer's own, else its EOS, else none: then the first token is not learned. The prompt's tokens are those that
    the model is asked with, the text's those that go on from there to the same characters. Of messages it reads the
    tokens of what the chat template writes, as a whole, and learns those of the assistant's words, up to the special
    token that ends them, or those that the template itself marks. Of a prompt that nothing answers it learns nothing.
    One of ``two_parts`` reads ``prompt [EOS] text [EOS]``, the text with its second part, and no text without a prompt.
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
        embeds: bool = False,
        two_parts: bool = False,
    ) -> None:
        self.two_parts = two_parts
        self.tokenizer: Any = tokenizer
        self.task, self.head, self.tags = task, head_of(task, embeds), list(tags)
        self.max_length, self.over, self.pack = max_length, over, pack
        self.where = f"agents.{agent}" if agent else "agents"
        self.notes: list[str] = []  # what was chosen that no file says
        self._template = Template(tokenizer, self.where) if self.head == CAUSAL else None
        self._make: Callable[[list[Sample], Report], Iterator[Made]] = {
            SEQUENCE: self._classified,
            TOKEN: self._tagged,
            CAUSAL: self._modelled,
            CROSS: self._listed,
            BI: self._listed,
        }[self.head]
        self.vocabulary = len(tokenizer)
        self.pad = self._pad()
        self._separator = separator(tokenizer)
        paired = self.head == CROSS
        special = self.tokenizer.num_special_tokens_to_add(pair=paired) if self.head != CAUSAL else 1
        if max_length <= special:
            self._refuse(
                f"max_length {max_length} leaves no room beside {special} special tokens", "a larger text.max_length"
            )
        if two_parts and tokenizer.eos_token_id is None:
            self._refuse("the tokenizer has no token that ends a prompt", "one with `eos_token`, as those of T5")
        if self.head == TOKEN and NO_TAG not in self.tags:
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
        if self.head != CAUSAL or self.two_parts:
            return None
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return eos if bos is None else bos

    @property
    def asked_until(self) -> list[int]:
        """What ends a prompt that another part of the model answers: the token that ends a text."""
        return [self.tokenizer.eos_token_id] if self.two_parts else []

    def is_special(self, token: int) -> bool:
        """Whether a token stands for no text."""
        return token in self._special

    def words(self) -> list[str]:
        """Every token as text, with the space it begins with; one that is part of a character is no text of its own."""
        return [self.word(number) for number in range(self.vocabulary)]

    def word(self, token: int) -> str:
        """One token as text, see :meth:`words`."""
        before = self.tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        lead = len(self.tokenizer.decode(before))  # alone, a token of some tokenizers loses its first space
        return str(self.tokenizer.decode([*before, token])[lead:])

    @cached_property
    def numbers(self) -> str:
        """The sha256 of which number stands for which token: what columns over a vocabulary mean."""
        return numbered(self.tokenizer)

    def files(self) -> dict[str, str]:
        """The tokenizer's files by name, for processes that cannot read or make it themselves."""
        return dumps(self.tokenizer)

    def encode(self, texts: Texts, pairs: bool = False) -> tuple[Encoded, Report]:
        """Return the samples as tokens, a sample for each, and what had to be cut.

        ``pairs``: both answers of each, in a row of tokens of their own; these are not packed.

        A sample that cannot be encoded is left out: its row is a pad token. If none can be, or samples over the limit
        are refused, it is an Unreadable that names agent, field and sample; what no sample should have is a MeshError.
        """
        report = Report(samples=len(texts))
        collected = Collected(texts.unread)
        first: Unreadable | None = None
        unknown = self.tokenizer.unk_token_id
        make = self._paired if pairs else self._make
        for samples in _chunks(texts):
            start, rows = len(collected), list[Row]()
            for number, made in enumerate(make(samples, report)):
                at = start + number
                if isinstance(made, Unreadable):
                    first = first or made
                    if self.over == "refuse":
                        raise made
                    report.unreadable[at] = made.what
                    rows.append(Row([self.pad]))
                    continue
                row, cut = made
                report.tokens += len(row.ids)
                report.unknown += row.ids.count(unknown)
                if cut:
                    (report.dropped if self.over == "drop" else report.truncated).append(at)
                if not row.units and self.head.per == "units" and not (cut and self.over == "drop"):
                    report.empty.append(at)
                    report.alone += not samples[number].answered
                report.characters += sum(end - begin for begin, end in row.spans)
                rows.append(row)
            collected.add(rows)
        if first is not None and len(report.unreadable) == len(texts):
            raise first
        return collected.encoded(self.pad, self.max_length if self.pack and not pairs else None), report

    def _each(self, samples: Iterable[Any], read: Callable[[Any], Any]) -> list[Any]:
        """``read`` of every sample, or why it cannot be read; what cannot be read stays so."""
        found: list[Any] = []
        for sample in samples:
            try:
                found.append(sample if isinstance(sample, Unreadable) else read(sample))
            except Unreadable as error:
                error.where = error.where or self.where
                found.append(error)
        return found

    def _readable(self, sample: Sample) -> Sample:
        """The sample, if its fields are well-formed."""
        if sample == HIDDEN:
            self._refuse_sample(sample, "text", "it is not here", "samples of this agent")
        if sample.fault:
            raise Unreadable(sample.fault, where=self.where, instead="a sample that can be read, or a file without it")
        for name in ("text", "pair", "prompt", "messages", "candidates", "rejected"):
            value = getattr(sample, name)
            try:
                (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
            except UnicodeEncodeError:
                self._leave_out(sample, name, "half of a surrogate pair", "well-formed Unicode")
        return sample

    def _classified(self, samples: list[Sample], report: Report) -> Iterator[Made]:
        for made in self._with_specials(samples, report, "prompt", "messages", "candidates", "rejected"):
            yield made if isinstance(made, Unreadable) else (Row(made[0]), made[2])

    def texts(self, sample: Sample) -> list[Sample]:
        """The texts of a sample that a model reads one by one: one, or those of a query and its candidates."""
        if self.head not in LISTS:
            return [sample]
        at, query = sample.at or "a sample", sample.text
        each = [(candidate, f"{at}, candidate {number}") for number, candidate in enumerate(sample.candidates or ())]
        if self.head == CROSS:
            return [Sample(query, candidate, at=place) for candidate, place in each]
        return [Sample(query, at=f"{at}, query"), *(Sample(candidate, at=place) for candidate, place in each)]

    def _listed(self, samples: list[Sample], report: Report) -> Iterator[Made]:
        """A row for a whole list; it is cut, or cannot be read, where any text of it is or cannot."""
        given = self._each(samples, self._list)
        texts = [[] if isinstance(one, Unreadable) else self.texts(one) for one in given]
        encoded = self._with_specials([text for own in texts for text in own], report)
        for one, own in zip(given, texts, strict=True):
            made = [next(encoded) for _ in own]
            unread = next((part for part in (one, *made) if isinstance(part, Unreadable)), None)
            if unread is not None:
                yield unread
                continue
            parts = [part for part in made if not isinstance(part, Unreadable)]
            ids = [number for part in parts for number in part[0]]
            yield Row(ids, texts=[len(part[0]) for part in parts]), any(part[2] for part in parts)

    def _list(self, sample: Sample) -> Sample:
        """The sample, if it is a query with candidates."""
        self._readable(sample)
        if not sample.candidates:
            self._refuse_sample(sample, "candidates", "no candidate to score", "one or more for each query")
        self._reads_all(sample, "pair", "prompt", "messages", "spans", "rejected")
        return sample

    def _tagged(self, samples: list[Sample], report: Report) -> Iterator[Made]:
        encoded = self._with_specials(samples, report, "pair", "prompt", "messages", "candidates", "rejected")
        for sample, made in zip(samples, encoded, strict=True):
            if isinstance(made, Unreadable):
                yield made
                continue
            if sample.spans is None:
                self._refuse_sample(sample, "spans", "no spans to tag words by", "data with `spans`")
            ids, offsets, cut = made
            words = [match.span() for match in WORD.finditer(sample.text)]
            units, lost = _first_tokens(words, offsets, cut)
            if not units and not cut:
                yield self._unreadable(sample, "text", NOTHING_LEFT, "text that it knows")
                continue
            report.lost += lost
            yield (Row(ids, units, self._tags(sample, words)[: len(units)], words[: len(units)]), cut)

    def _modelled(self, samples: list[Sample], report: Report) -> Iterator[Made]:
        written = self._each(self._each(samples, self._readable), self._written)
        for sample, row in zip(samples, self._rows(samples, written), strict=True):
            if isinstance(row, Unreadable):
                yield row
                continue
            report.longest = max(report.longest, len(row.ids))
            cut = self._is_over(sample, len(row.ids))
            yield self._within(row), cut
        report.unread.update(name for one in written if isinstance(one, Chat) for name in one.unread)

    def _within(self, row: Row) -> Row:
        """As much of a row as the model reads."""
        keep = sum(unit + 1 < self.max_length for unit in row.units)
        return Row(row.ids[: self.max_length], row.units[:keep], row.targets[:keep], row.spans[:keep])

    def _paired(self, samples: list[Sample], report: Report) -> Iterator[Made]:
        """Both answers of a sample, one after the other; of a chat the last turn alone, which tells them apart."""
        given = self._each(self._each(samples, self._readable), self._pair)
        both = [one for pair in given if not isinstance(pair, Unreadable) for one in pair]
        written = [
            replace(one, learned=one.learned[-1:]) if isinstance(one, Chat) else one
            for one in self._each(both, self._written)
        ]
        rows = iter(self._rows(both, written))
        for pair in given:
            yield pair if isinstance(pair, Unreadable) else self._side_by_side(pair, (next(rows), next(rows)), report)
        report.unread.update(name for one in written if isinstance(one, Chat) for name in one.unread)

    def _pair(self, sample: Sample) -> tuple[Sample, Sample]:
        """The two samples of one with two answers, each named in errors."""
        if sample.rejected is None:
            self._refuse_sample(sample, "rejected", "there is no second answer", "data with `rejected`")
        at = sample.at or "a sample"
        chosen, rejected = answers_of(sample)
        if chosen == rejected:
            self._leave_out(sample, "rejected", "both answers are the same", "two answers that differ")
        return replace(chosen, at=f"{at}, chosen answer"), replace(rejected, at=f"{at}, rejected answer")

    def _side_by_side(self, pair: tuple[Sample, Sample], made: tuple[Row | Unreadable, ...], report: Report) -> Made:
        rows = [row for row in made if isinstance(row, Row)]
        if len(rows) < 2:
            return next(row for row in made if isinstance(row, Unreadable))
        report.longest = max(report.longest, *(len(row.ids) for row in rows))
        over = [self._is_over(one, len(row.ids)) for one, row in zip(pair, rows, strict=True)]
        cut = any(over)
        short = [self._within(row) for row in rows]
        what = ""
        if not all(row.units for row in short):
            what = "an answer is cut away"
        elif short[0].ids == short[1].ids:
            what = "both answers are the same tokens"
        if what and not (cut and self.over == "drop"):
            within = f" within the {self.max_length} tokens that are read" if cut else ""
            return self._unreadable(pair[1], "text", what + within, "answers that differ, or a larger text.max_length")
        return side_by_side(*short), cut

    def _written(self, sample: Sample) -> Sample | Chat:
        """A conversation as the template writes it, another sample as it is."""
        if sample.messages is not None:
            if self.two_parts:
                what = "a chat, and this model reads with one part and answers with another"
                self._refuse_sample(sample, "messages", what, "a prompt and a text")
            assert self._template is not None
            return self._template.write(sample) if sample.answered else self._template.ask(sample)
        for name in ("pair", "spans", "candidates"):
            if getattr(sample, name) is not None:
                self._refuse_sample(sample, name, "a language model reads none", "data without it, or another task")
        if self.two_parts and not sample.prompt:
            what = "this model reads a prompt with one part and answers with another, and there is no prompt"
            self._refuse_sample(sample, "prompt", what, "data with prompts, or a decoder alone: gpt2, llama")
        if not sample.text and not sample.prompt:
            self._leave_out(sample, "text", "an empty text", "text in every sample")
        return sample

    def _rows(self, samples: list[Sample], written: list[Any]) -> list[Row | Unreadable]:
        """A language model's rows, uncut, with a unit for each learned token that another stands before."""
        good = [one for one in written if not isinstance(one, Unreadable)]
        asked = [one for one in good if isinstance(one, Sample) and one.prompt is not None]
        alone = iter(self._tokens([one.text for one in good]))
        prompts = self._tokens([one.prompt for one in asked])
        whole = self._tokens([f"{one.prompt}{one.text}" for one in asked])
        chats = [number for number, one in enumerate(written) if isinstance(one, Chat)]

        def read(number: int) -> Row:
            one, tokens = written[number], next(alone)
            if isinstance(one, Chat):
                if number == chats[0]:
                    self._is_the_templates(samples[number], tokens[0])
                if not one.learned:
                    return self._only_asks(samples[number], tokens[0])
                return self._learned(samples[number], pieces.chat(one, tokens, self._special.__contains__))
            if one.prompt is None:
                return self._learned(one, pieces.plain(one.text, tokens))
            told = next(prompts), tokens, next(whole)
            if not one.text:
                return self._only_asks(one, told[0][0])
            return self._learned(one, pieces.answer(one, *told, self.tokenizer, self.where))

        numbers = [one if isinstance(one, Unreadable) else number for number, one in enumerate(written)]
        return self._each(numbers, read)

    def _only_asks(self, sample: Sample, ids: list[int]) -> Row:
        """The row of a prompt that nothing answers."""
        if not ids:
            self._leave_out(sample, "prompt" if sample.messages is None else "messages", NOTHING_LEFT, "text it knows")
        ids = [*ids, *self.asked_until]
        return Row(ids if sample.messages is not None or self.begin is None else [self.begin, *ids])

    def _is_the_templates(self, sample: Sample, ids: list[int]) -> None:
        """Refuse a tokenizer that makes other tokens of a conversation than of what its template writes."""
        turns, tools = given(sample)
        own = self.tokenizer.apply_chat_template(turns, tools=tools, tokenize=True, return_dict=True)["input_ids"]
        if list(own) != ids:
            self._refuse_sample(
                sample,
                "messages",
                f"`apply_chat_template` gives {len(own)} tokens, other than the {len(ids)} of the text that it writes",
                "a tokenizer whose chats are the tokens of its template's text",
            )

    def _learned(self, sample: Sample, piece: pieces.Piece) -> Row:
        """A language model's row, uncut, with what begins and ends it."""
        ids, spans = list(piece.ids), list(piece.spans)
        if all(span is None for span in spans):
            self._leave_out(sample, _told_by(sample), NOTHING_LEFT, "text that it knows")
        if self.two_parts:
            first = next(at for at, span in enumerate(spans) if span is not None)
            ids[first:first], spans[first:first] = self.asked_until, [None]
        if sample.messages is None and self.begin is not None:
            ids, spans = [self.begin, *ids], [None, *spans]
        end = self.tokenizer.eos_token_id
        if piece.open and end is not None:
            told = next(span[1] for span in reversed(spans) if span is not None)
            ids.append(end)
            spans.append((told, told))
        units = [at for at, span in enumerate(spans[1:]) if span is not None]
        learned = [span for span in spans[1:] if span is not None]
        return Row(ids, units, [ids[unit + 1] for unit in units], learned)

    def _with_specials(
        self, samples: list[Sample], report: Report, *unread: str
    ) -> Iterator[tuple[list[int], Offsets, bool] | Unreadable]:
        """Ids and offsets of each sample with the tokenizer's special tokens, and whether it was cut."""
        found: dict[int, tuple[list[int], Offsets, bool] | Unreadable] = {}
        checked = self._each(samples, lambda sample: self._needs_text(self._readable(sample), *unread))
        found.update((number, one) for number, one in enumerate(checked) if isinstance(one, Unreadable))
        for paired in (False, True):
            group = [n for n, sample in enumerate(samples) if n not in found and (sample.pair is not None) == paired]
            least = self.tokenizer.num_special_tokens_to_add(pair=paired)
            whole = self._given([samples[number] for number in group], paired)
            over: list[int] = []
            for number, (ids, offsets) in zip(group, whole, strict=True):
                report.longest = max(report.longest, len(ids))
                if len(ids) <= least:
                    found[number] = self._unreadable(samples[number], "text", NOTHING_LEFT, "text that it knows")
                    continue
                if self._is_over(samples[number], len(ids)):
                    over.append(number)
                found[number] = ids, offsets, False
            if not paired and self._around is not None and self.max_length > least:
                found.update((number, self._cut(found[number])) for number in over)
                continue
            shorter = self._given(
                [samples[number] for number in over], paired, truncation=True, max_length=self.max_length
            )
            found.update((number, (*pair, True)) for number, pair in zip(over, shorter, strict=True))
        return (found[number] for number in range(len(samples)))

    @cached_property
    def _around(self) -> int | None:
        """How many special tokens stand before a text that is alone, the others after it; None: among its own, or the
        tokenizer leaves out beginnings.
        """
        told = self.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
        if 0 not in told:  # it leaves nothing of this one
            return None
        before, after = told.index(0), told[::-1].index(0)
        count = self.tokenizer.num_special_tokens_to_add(pair=False)
        return before if self.tokenizer.truncation_side == "right" and before + after == count else None

    def _cut(self, made: Any) -> tuple[list[int], Offsets, bool]:
        """The same as ``truncation`` would give of a text that was tokenised whole, and so need not be again."""
        ids, offsets, _ = made
        assert self._around is not None
        after = self.tokenizer.num_special_tokens_to_add(pair=False) - self._around
        keep, end = self.max_length - after, len(ids) - after
        return [*ids[:keep], *ids[end:]], [*offsets[:keep], *offsets[end:]], True

    def _given(self, samples: list[Sample], paired: bool, **settings: Any) -> list[tuple[list[int], Offsets]]:
        if not samples:
            return []
        pairs = ([sample.pair for sample in samples],) if paired else ()
        try:
            return list(self._tokens([sample.text for sample in samples], *pairs, add_special_tokens=True, **settings))
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

    def _reads_all(self, sample: Sample, *unread: str) -> None:
        for name in unread:
            if getattr(sample, name) is not None:
                what = f"the task {self.task} reads none"
                self._refuse_sample(sample, name, what, "data without it, or another task")

    def _needs_text(self, sample: Sample, *unread: str) -> None:
        self._reads_all(sample, *unread)
        for name in ("text", "pair"):
            value = getattr(sample, name)
            if value is not None and not value.strip():
                self._leave_out(sample, name, "an empty text", "text in every sample")

    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        if pad is None and self.head != CAUSAL:
            self._refuse(
                "the tokenizer has no pad token",
                "model.hf.pad_token: one of its tokens (`pad_token_id` of a config is the model's, not its "
                "tokenizer's): a classifier's inputs are padded",
            )
        if pad is None:
            pad = self.tokenizer.eos_token_id  # masked, and no unit: any token will do
        return 0 if pad is None else int(pad)

    def _key(self) -> str:
        """Equal keys give equal tokens."""
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())
        backend |= {"truncation": None, "padding": None}
        names = {name: str(token) for name, token in self.tokenizer.special_tokens_map.items()}
        settings = [self.task, self.head, self.max_length, self.over, self.tags, self.pack, self.pad]
        settings += ["in two parts"] if self.two_parts else []
        told = json.dumps([backend, names, self.tokenizer.chat_template, settings], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def _leave_out(self, sample: Sample, name: str, what: str, instead: str) -> NoReturn:
        raise self._unreadable(sample, name, what, instead)

    def _unreadable(self, sample: Sample, name: str, what: str, instead: str) -> Unreadable:
        return Unreadable(f"{sample.at or 'a sample'}, field {name!r}: {what}", where=self.where, instead=instead)

    def _refuse_sample(self, sample: Sample, name: str, what: str, instead: str) -> NoReturn:
        self._refuse(f"{sample.at or 'a sample'}, field {name!r}: {what}", instead)

    def _refuse(self, what: str, instead: str) -> NoReturn:
        raise MeshError(what, where=self.where, instead=instead)


def _chunks(texts: Texts) -> Iterator[list[Sample]]:
    """Samples that are tokenised at a time."""
    found, size = list[Sample](), 0
    for sample in texts:
        found.append(sample)
        size += size_of(sample)
        if len(found) == CHUNK or size >= CHARACTERS:
            yield found
            found, size = [], 0
    if found:
        yield found


def _told_by(sample: Sample) -> str:
    """The field that holds what is learned."""
    return "text" if sample.messages is None else "messages"


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
