"""A conversation as its chat template writes it, and which of its characters the assistant wrote."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from kdmesh.errors import MeshError
from kdmesh.streams.texts import LEARNED, Unreadable, turn_of

if TYPE_CHECKING:
    from kdmesh.streams.texts import Sample

MARK = "\ue000{}\ue001"  # of Unicode's private use: stands in no conversation
MARKS = re.compile("\ue000(\\d+)\ue001")
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""How a template begins what is to be learned, if it says so itself."""

THOUGHT = re.compile(r"(\s*<think>)(.*?)(</think>)(.*)", re.DOTALL)
REASONING = ("reasoning_content", "reasoning", "thinking")
"""The names that data give to what a model thinks before it answers."""

READ = {"role", "content", "tool_calls", *REASONING}


class Words(NamedTuple):
    """Words of a sample in the written text, from character ``start`` to ``end``.

    ``told``: how many characters of the sample's learned words stand before them; ``lead``: how many of their own the
    template left out at their beginning; ``length``: how many they have in the sample. Tokens are about the sample's
    characters, not the template's, so that agents with unlike templates agree on where a token stands.
    """

    start: int
    end: int
    told: int
    lead: int
    length: int


@dataclass(frozen=True, slots=True)
class Chat:
    """What the template writes. ``learned``: ranges of its characters; ``words``: where the sample's words are.

    ``exact``: the template itself marks what is learned; ``unread``: what of the sample it leaves out, by name.
    """

    text: str
    learned: list[tuple[int, int]]
    words: list[Words]
    exact: bool
    unread: list[str]


@dataclass
class _Turn:
    """A turn with marks in place of the assistant's words; ``marks``: the words' numbers."""

    given: dict[str, Any]
    marks: list[int] = field(default_factory=list)
    calls: bool = False


class _Place(NamedTuple):
    """Where words stand in the written text, how many characters at their beginning lack, and what is before them."""

    start: int
    end: int
    lead: int
    before: str


@dataclass
class _Marked:
    """A conversation's turns with marks, the words that these stand for, and in what field the words were."""

    turns: list[_Turn] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def add(self, turn: dict[str, Any]) -> None:
        """Append a turn; of the assistant's the reasoning, the words and the names of called tools are marked."""
        made = _Turn(dict(turn))
        self.turns.append(made)
        if turn["role"] != LEARNED:
            return
        thoughts = next(
            (turn[name] for name in REASONING if isinstance(turn.get(name), str) and turn[name].strip()), ""
        )
        if thoughts:
            mark = self._mark(made, thoughts, "reasoning_content")
            made.given |= {name: mark for name in REASONING if turn.get(name) == thoughts}
        content = turn.get("content") or ""
        thought = THOUGHT.fullmatch(content)
        if thought is not None and thought[2].strip():
            begin, inner, end, rest = thought.groups()
            made.given["content"] = begin + self._mark(made, inner, "<think> in content") + end
            made.given["content"] += self._mark(made, rest, "content") if rest.strip() else rest
        elif content.strip():
            made.given["content"] = self._mark(made, content, "content")
        if turn.get("tool_calls"):
            made.calls = True
            made.given["tool_calls"] = [self._called(made, call) for call in turn["tool_calls"]]

    def _called(self, turn: _Turn, call: dict[str, Any]) -> dict[str, Any]:
        if "function" in call:
            return {**call, "function": self._called(turn, call["function"])}
        return {**call, "name": self._mark(turn, call["name"], "tool_calls")}

    def _mark(self, turn: _Turn, words: str, kind: str) -> str:
        turn.marks.append(len(self.words))
        self.words.append(words)
        self.kinds.append(kind)
        return MARK.format(turn.marks[-1])

    def hidden(self, places: dict[int, _Place]) -> bool:
        """Whether of some turn with words nothing is written."""
        worded = [turn.marks for turn in self.turns if any(self.kinds[mark] == "content" for mark in turn.marks)]
        return any(not set(marks) & set(places) for marks in worded)

    def found(self, places: dict[int, _Place]) -> list[Words]:
        """Where the words stand, in the order of the sample."""
        told, every = 0, []
        for number, words in enumerate(self.words):
            if number in places:
                place = places[number]
                every.append(Words(place.start, place.end, told, place.lead, len(words)))
            told += len(words)
        return every


def given(sample: Sample) -> tuple[list[dict[str, Any]], Any]:
    """A sample's turns and tools, as `apply_chat_template` takes them."""
    turns = [turn_of(turn) for turn in sample.messages or ()]
    return turns, None if sample.tools is None else json.loads(sample.tools)


class Template:
    """A tokenizer's chat template, known by what it writes."""

    def __init__(self, tokenizer: Any, where: str) -> None:
        self.tokenizer, self.where = tokenizer, where
        self._reads_tools: bool | None = None
        self._header = self._asks()

    def write(self, sample: Sample) -> Chat:
        """Return a sample's messages as the template writes them, and what of it is learned.

        The template is applied twice, the second time with marks for the assistant's words: what it writes around them
        stands between the marks, whatever it does with other turns. Learned is what follows the generation prompt, from
        the reasoning to the end of the calls of tools; where a template has marks of its own (`{% generation %}`), what
        stands between these. A template that trims the words, or writes no reasoning, is followed. Raises Unreadable
        for messages that it refuses, and for words that cannot be told from what it writes around them.
        """
        self._needs_template(sample)
        turns, tools = given(sample)
        self._needs_words(sample, turns)
        marked = _Marked()
        for turn in turns:
            marked.add(turn)
        written = self._render(sample, turns, tools)
        chosen = self.tokenizer.get_chat_template(None, tools)
        exact = GENERATION.search(chosen) is not None
        places = _match(written, self._render(sample, [turn.given for turn in marked.turns], tools), marked.words)
        lost = {kind for number, kind in enumerate(marked.kinds) if number not in (places or {})}
        if exact:
            learned = self._own_marks(turns, tools, chosen)
        elif places is None or marked.hidden(places):
            self._refuse(
                sample,
                f"the chat template changes the words of role {LEARNED!r}, so that they cannot be told from what it "
                "writes around them",
                "a template that writes `content` as it is, or data with `prompt` and `text`",
            )
        else:
            learned = self._ranges(sample, marked, places, written, tools)
        if not learned:
            self._refuse(
                sample,
                f"the chat template writes nothing of role {LEARNED!r}: it leaves out {', '.join(sorted(lost))}",
                "a template that writes it, or data without such turns",
            )
        words = marked.found(places or {})
        if exact and (places is None or "content" in lost):  # words of which only the template's marks are known
            told = [sum(end - start for start, end in learned[:number]) for number in range(len(learned))]
            words = [Words(start, end, at, 0, end - start) for (start, end), at in zip(learned, told, strict=True)]
            lost = set()
        return Chat(written, learned, words, exact, sorted(lost | self._unread(sample, turns, tools, written, chosen)))

    def ask(self, sample: Sample) -> Chat:
        """The same of turns of which none is the assistant's: a prompt, of which nothing is learned."""
        self._needs_template(sample)
        turns, tools = given(sample)
        written = self._render(sample, turns, tools)
        chosen = self.tokenizer.get_chat_template(None, tools)
        return Chat(written, [], [], True, sorted(self._unread(sample, turns, tools, written, chosen)))

    def _needs_template(self, sample: Sample) -> None:
        if not self.tokenizer.chat_template:
            raise MeshError(
                f"{sample.at}, field 'messages': the tokenizer has no chat template",
                where=self.where,
                instead="a tokenizer with one, or data with `prompt` and `text` instead of `messages`",
            )

    def _needs_words(self, sample: Sample, turns: list[dict[str, Any]]) -> None:
        own = [turn for turn in turns if turn["role"] == LEARNED]
        if not own:
            self._refuse(sample, f"no turn of role {LEARNED!r}", "at least one: its words are learned")
        for turn in own:
            told = (turn.get("content"), *(turn.get(name) for name in REASONING))
            if not turn.get("tool_calls") and not any(isinstance(words, str) and words.strip() for words in told):
                self._refuse(sample, f"an empty turn of role {LEARNED!r}", "words in every turn that is learned")

    def _ranges(
        self, sample: Sample, marked: _Marked, places: dict[int, _Place], written: str, tools: Any
    ) -> list[tuple[int, int]]:
        """What is learned of each turn of the assistant: from behind the generation prompt to its last words."""
        ranges = []
        for number, turn in enumerate(marked.turns):
            here = sorted(places[mark] for mark in turn.marks if mark in places)
            if not here:
                continue
            first, end = here[0], here[-1].end
            start = first.start
            at = first.before.rfind(self._header) if self._header else -1
            if at >= 0:
                start -= len(first.before) - at - len(self._header)
            if turn.calls or (at < 0 and marked.kinds[turn.marks[0]] != "content"):
                head, tail = self._contrast(sample, marked, number, tools)
                start -= len(head) if at < 0 and first.before.endswith(head) else 0
                end += len(tail) if written.startswith(tail, end) else 0
            ranges.append((start, end))
        return ranges

    def _contrast(self, sample: Sample, marked: _Marked, number: int, tools: Any) -> tuple[str, str]:
        """What is written for a turn and not for one of words alone: before its first mark, and after its last."""
        before, plain = [turn.given for turn in marked.turns[:number]], MARK.format(len(marked.words))
        simple = self._render(sample, [*before, {"role": LEARNED, "content": plain}], tools)
        full = self._render(sample, [*before, marked.turns[number].given], tools)
        head, _, tail = simple.partition(plain)
        own = marked.turns[number].marks
        first = min((full.find(MARK.format(mark)) for mark in own if MARK.format(mark) in full), default=len(full))
        last = max(match.end() for match in MARKS.finditer(full))
        same = _alike(full[last:][::-1], tail[::-1])
        return full[_alike(head, full[:first]) : first], full[last : len(full) - same]

    def _own_marks(self, turns: list[dict[str, Any]], tools: Any, chosen: str) -> list[tuple[int, int]]:
        """What the template marks as learned."""
        from transformers.utils.chat_template_utils import render_jinja_template

        made: Any = render_jinja_template(
            conversations=[[{key: value for key, value in turn.items() if value is not None} for turn in turns]],
            tools=tools,
            chat_template=chosen,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        return [(start, end) for start, end in made[1][0] if end > start]

    def _unread(self, sample: Sample, turns: list[dict[str, Any]], tools: Any, written: str, chosen: str) -> set[str]:
        """What else of the sample the template does not write: its tools, keys of turns, turns of other roles."""
        found = {key for turn in turns for key in turn if key not in READ and key not in chosen}
        if tools is not None:
            if self._reads_tools is None:
                self._reads_tools = self._render(sample, turns, None) != written
            found |= set() if self._reads_tools else {"tools"}
        for turn in turns:
            words = (turn.get("content") or "").strip()
            if (
                turn["role"] != LEARNED
                and words not in written
                and json.dumps(words, ensure_ascii=False) not in written
            ):
                found.add(f"turns of role {turn['role']!r}")
        return found

    def _asks(self) -> str:
        """What the template writes for the model to go on from, beside the turns; "" where it has no such prompt."""
        turns = [{"role": "user", "content": "a"}]
        try:
            plain, asking = (
                self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=more)
                for more in (False, True)
            )
        except Exception:  # of jinja: a template that refuses this conversation says nothing
            return ""
        return str(asking)[len(plain) :] if asking.startswith(plain) else ""

    def _render(self, sample: Sample, turns: list[dict[str, Any]], tools: Any) -> str:
        try:
            return str(self.tokenizer.apply_chat_template(turns, tools=tools, tokenize=False))
        except Exception as error:  # of jinja: the template refuses these turns, or is broken
            self._refuse(
                sample,
                f"the chat template refuses them: {error}",
                "the roles and the order of turns that the template knows",
            )

    def _refuse(self, sample: Sample, what: str, instead: str) -> NoReturn:
        raise Unreadable(f"{sample.at or 'a sample'}, field 'messages': {what}", where=self.where, instead=instead)


def _match(written: str, marked: str, words: list[str]) -> dict[int, _Place] | None:
    """Where words stand in the text, by what is around their marks in the other; None where that does not agree."""
    before, *rest = MARKS.split(marked)
    if not written.startswith(before) or len(set(rest[::2])) < len(rest) // 2:
        return None
    at, found = len(before), dict[int, _Place]()
    for number, after in zip(map(int, rest[::2]), rest[1::2], strict=True):
        last = len(found) == len(rest) // 2 - 1
        for lead, text in _trimmed(words[number]):
            end = at + len(text)
            if written.startswith(text, at) and (written[end:] == after if last else written.startswith(after, end)):
                found[number] = _Place(at, end, lead, before)
                break
        else:
            return None
        at, before = end + len(after), after
    return found if rest or written == marked else None


def _trimmed(words: str) -> list[tuple[int, str]]:
    """Words as they are and as templates trim them, each with how many characters lack at its beginning."""
    made = (words, words.strip(), words.lstrip(), words.rstrip())
    lines = (words.strip("\n"), words.lstrip("\n"), words.rstrip("\n"))
    return [(words.find(text), text) for text in dict.fromkeys(made + lines) if text]


def _alike(one: str, other: str) -> int:
    """How many characters at their beginning two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))
