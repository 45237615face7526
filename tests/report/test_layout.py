from __future__ import annotations

import json
import os
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from kdmesh.cli import main
from kdmesh.plugins import KINDS, registry
from kdmesh.report import layout
from kdmesh.spec.read import bundled

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z", "M")) | st.just(" "), max_size=60)


def long(text: str) -> list[str]:
    """Lines of over 80 cells, but for those that a path or a URL makes so."""
    lines = text.splitlines()
    return [line for line in lines if cell_len(line) > 80 and not any(map(layout.WHOLE.match, line.split()))]


@settings(max_examples=50)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5), st.integers(12, 100))
def test_a_table_fits_and_loses_nothing(rows: list[tuple[str, str, str]], width: int) -> None:
    rows = [tuple(cell.replace("/", "").replace(":", "") for cell in row) for row in rows]  # type: ignore[misc]
    lines = layout.table(rows, width, right={1}, heads=1, rule="-")
    assert max(map(cell_len, lines)) <= width
    for letter in set("".join(map("".join, rows))) - {" ", "-"}:
        assert "".join(lines).count(letter) == sum(row.count(letter) for row in map("".join, rows))


@settings(max_examples=50)
@given(st.lists(TEXT, max_size=8), st.integers(4, 100))
def test_a_paragraph_fits_and_loses_nothing(words: list[str], width: int) -> None:
    text = " ".join(words).replace("/", "").replace(":", "").strip()
    lines = layout.wrap(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_words_stay_whole_while_there_is_room_and_paths_always() -> None:
    rows = [("name", "temperature", "settings"), ("a name of words", "4", "kl(temperature 4, reduction batchmean)")]
    lines = layout.table(rows, 40)
    assert "temperature" in lines[0] and not any(line.endswith("kl(temper") for line in lines)
    path = "/a/very/long/path/of/folders/that/is/wider/than/the/line.yaml"
    assert path in layout.wrap(f"see {path} there", 30) and layout.table([("a", path)], 30)[0].endswith(path)
    assert layout.wrap("  step: a b c d", 9, "  ") == ["  step: a", "    b c d"]
    assert layout.wrap("", 9) == [""] and layout.table([], 9) == []


def test_a_terminal_tells_how_wide_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return 7

    for columns, width in ((132, 132), (40, 40), (0, 80)):
        monkeypatch.setattr(
            layout.os, "get_terminal_size", partial(lambda size, _: size, os.terminal_size((columns, 24)))
        )
        assert layout.terminal_width(Terminal()) == width  # type: ignore[arg-type]


@pytest.mark.parametrize("command", ["plan", "check"])
@pytest.mark.parametrize("name", bundled())
def test_pages_of_the_bundled_meshes_have_80_columns(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if (command, name) == ("check", "api-classifier"):
        pytest.skip("it asks an endpoint, and reads a user's own file: tests/endpoints")
    assert main([command, name]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) > 5 and long(text) == []


def test_listings_have_80_columns_and_say_all(capsys: pytest.CaptureFixture[str]) -> None:
    """What a listing has as JSON stands in its page too, folded."""
    for command in (["plugins", "--all"], ["topologies"]):
        assert main(command) == 0
        page = capsys.readouterr().out
        assert main([*command, "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert long(page) == [] and len(rows) > 10
        assert all("".join(row["name"].split()) in "".join(page.split()) for row in rows)
    for kind in KINDS:
        for name in registry().names(kind):
            assert main(["plugins", "show", name, "--kind", kind]) == 0
            assert long(capsys.readouterr().out) == []
