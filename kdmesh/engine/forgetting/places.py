"""The files of a part of a run that samples reached, and what is left of each without them.

Every change is to a whole file at once, and to make it again changes nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from kdmesh.contracts.run_files import (
    ANSWERS,
    CHECKPOINTS,
    CONTROLS,
    ENDPOINTS,
    GIVEN,
    LOCK,
    MANIFEST,
    PERSONAL,
    RESOLVED,
    SEEDS,
    STREAMS,
    SUMS,
)
from kdmesh.files import opened, to_json, write
from kdmesh.streams.prepared import NUMBERS, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kdmesh.engine.forgetting.asked import Asked

TRAIN = "train"
FORGOTTEN = "[forgotten]"
"""What stands in the place of a text that was taken out of a figure or an event."""
PAGES = (".html",)
TEXTS = (".json", ".jsonl", ".csv", ".txt", ".yaml", ".tsv", ".md")  # files of the folder that may quote a sample
ASKED = (GIVEN, RESOLVED, MANIFEST)  # what the user wrote, which says what the run was
ELSEWHERE = (LOCK, SUMS, ANSWERS, SETTINGS, NUMBERS)  # what is looked at as what it is
APART = (SEEDS, CONTROLS, CHECKPOINTS, STREAMS, ENDPOINTS, "agents", "consensus")

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Place:
    """A file or folder that samples reached, by its path within the run.

    ``what``: of them stands there; ``change``: takes that out; None: it stays, and ``what`` says what is to be done.
    """

    path: str
    what: str
    change: Change | None = None


def within(part: Path, root: Path, asked: Asked) -> Iterator[Place]:
    """The places in one part of a run: its folder, or that of a seed or control in it."""
    found = [
        *_checkpoints(part, asked), *_written(part, asked), *_endpoints(part, asked), *_answers(part, asked),
        *_personal(part, asked), *_prepared(part, asked), *_quoting(part, asked),
    ]  # fmt: skip
    for path, what, change in found:
        yield Place(path.relative_to(root).as_posix(), what, change)


Found = tuple[Path, str, Change | None]


def _checkpoints(part: Path, asked: Asked) -> Iterator[Found]:
    """All of them: weights that learned, what was published, and texts that were written, stand in one another."""
    if asked.streams and any((part / CHECKPOINTS).glob("*")):
        yield part / CHECKPOINTS, "what a run goes on from: goes as a whole", rmtree


def _written(part: Path, asked: Asked) -> Iterator[Found]:
    for path in sorted((part / STREAMS).glob("*.jsonl")):

        def goes(line: Any) -> bool:
            return line.get("sample") in asked.numbers or _quotes(line, asked.words)

        if count := sum(goes(line) for line in _lines(path)):
            yield path, f"{_many(count, 'written text')} to a sample, or quoting one", _dropping(goes)


def _endpoints(part: Path, asked: Asked) -> Iterator[Found]:
    """Answers: by what is kept nobody can say which sample one is to. What they cost stays, for the budget."""
    if not asked.streams:
        return
    for path in sorted((part / ENDPOINTS).glob("*.jsonl")):
        if count := sum(line.get("reply") is not None for line in _lines(path)):
            yield path, f"{_many(count, 'answer')}: whose samples' is not known, all go", _changing(_without_reply)


def _without_reply(line: Any) -> Any:
    return {**line, "reply": None} if line.get("reply") is not None else line


def _answers(part: Path, asked: Asked) -> Iterator[Found]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = part / ANSWERS
    if not path.is_file():
        return
    try:
        count = sum(int(one) in asked.numbers for one in load_file(path)["ids"])
    except (SafetensorError, OSError, KeyError):
        yield path, "answers to test samples, which cannot be read: goes as a whole", _deleted
        return
    if count:

        def change(file: Path) -> None:
            _without_rows(file, asked.numbers)

        yield path, f"how {_many(count, 'row')} of a sample {'was' if count == 1 else 'were'} answered", change


def _without_rows(path: Path, numbers: Collection[int]) -> None:
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import load_file, save

    arrays = load_file(path)
    with safe_open(path, framework="np") as file:
        about = file.metadata()
    left = ~np.isin(arrays["ids"], np.array(sorted(numbers)))
    if left.all():
        return
    write(path, save({name: np.ascontiguousarray(values[left]) for name, values in arrays.items()}, about))


def _personal(part: Path, asked: Asked) -> Iterator[Found]:
    path = part / PERSONAL
    rows = set(asked.rows)
    count = sum(line.get("row") in rows for line in _lines(path) if "part" not in line)
    if count:
        from kdmesh.personal.log import without

        def change(file: Path) -> None:
            without(file, rows)

        yield path, f"{_many(count, 'line')} of what was found in a sample", change


def _prepared(part: Path, asked: Asked) -> Iterator[Found]:
    """What `prepare` learned of train, as a category or the largest value: without it weights would not fit."""
    for name in (SETTINGS, NUMBERS):
        if TRAIN in asked.streams and (part / name).is_file():
            yield part / name, "what `prepare` learned of train: stays, since weights need it", None


def _quoting(part: Path, asked: Asked) -> Iterator[Found]:
    """Files that quote a sample: of the run's own the quotation goes, others are the user's."""
    for path in sorted(part.rglob("*")):
        below = path.relative_to(part).parts
        if not path.is_file() or path.is_symlink() or below[0] in APART or path.name in ELSEWHERE:
            continue
        own = len(below) == 1
        if path.suffix in PAGES and own and asked.streams:
            yield path, "a page made of this run: goes; `kdmesh report` makes it anew", _deleted
        elif _has(path, asked.words):
            yield path, *_quotation(path, own, asked.words)


def _quotation(path: Path, own: bool, words: Sequence[str]) -> tuple[str, Change | None]:
    if path.name in ASKED:
        return "the mesh itself quotes a sample: stays, it is what was asked for", None
    if not own or path.suffix not in TEXTS:
        return "quotes a sample, and is no file of the run: look at it", None

    def scrubbed(value: Any) -> Any:
        return _scrubbed(value, words)

    if path.suffix == ".jsonl":
        return "quotes a sample", _changing(scrubbed)
    if path.suffix == ".json":
        return "quotes a sample", lambda file: write(file, to_json(scrubbed(json.loads(file.read_bytes())), 2) + "\n")
    return "quotes a sample", lambda file: _replaced(file, words)


def _replaced(path: Path, words: Sequence[str]) -> None:
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    for word in sorted(words, key=len, reverse=True):
        for form in _forms(word):
            text = text.replace(form.decode("utf-8", "surrogateescape"), FORGOTTEN)
    write(path, text.encode("utf-8", "surrogateescape"))


def quoted(path: Path, words: Sequence[str]) -> bool:
    """Whether a file has one of some texts, as such or as JSON writes it."""
    return _has(path, words)


def _has(path: Path, words: Sequence[str]) -> bool:
    if not words:
        return False
    with opened(path) as file:
        content = file.read()
    return any(form in content for word in words for form in _forms(word))


def _forms(word: str) -> set[bytes]:
    """A text as files have it: plain, and as JSON, HTML and Python write it."""
    from html import escape

    said = {word, json.dumps(word)[1:-1], json.dumps(word, ensure_ascii=False)[1:-1], escape(word), repr(word)[1:-1]}
    return {one.encode("utf-8", "surrogatepass") for one in said}


def _quotes(value: Any, words: Sequence[str]) -> bool:
    if isinstance(value, str):
        return any(word in value for word in words)
    if isinstance(value, dict):
        return any(_quotes(one, words) for item in value.items() for one in item)
    return isinstance(value, list) and any(_quotes(one, words) for one in value)


def _scrubbed(value: Any, words: Sequence[str]) -> Any:
    if isinstance(value, str):
        forms = (form.decode("utf-8", "replace") for word in words for form in _forms(word))
        return FORGOTTEN if any(form in value for form in forms) else value
    if isinstance(value, dict):
        return {_scrubbed(key, words): _scrubbed(one, words) for key, one in value.items()}
    return [_scrubbed(one, words) for one in value] if isinstance(value, list) else value


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of lines; none where there is no file, and of a line that is none."""
    if not path.is_file():
        return
    with opened(path) as file:
        for line in file:
            if isinstance(found := _object(line), dict):
                yield found


def _object(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _dropping(goes: Callable[[Any], bool]) -> Change:
    def change(path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        left = [line for line in lines if not (isinstance(found := _object(line), dict) and goes(found))]
        write(path, b"".join(left))

    return change


def _changing(changed: Callable[[Any], Any]) -> Change:
    def change(path: Path) -> None:
        lines = []
        for line in path.read_bytes().splitlines(keepends=True):
            found = _object(line)
            new = changed(found) if isinstance(found, dict) else found
            lines.append(line if new == found else (to_json(new) + "\n").encode("utf-8", "backslashreplace"))
        write(path, b"".join(lines))

    return change


def _deleted(path: Path) -> None:
    path.unlink(missing_ok=True)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
