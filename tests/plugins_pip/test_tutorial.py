"""The tutorial, from an empty folder to a wheel: every file it shows is written, every command it gives is run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def passed(said: str) -> int:
    """How many tests pytest says passed."""
    found = re.search(r"(\d+) passed", said)
    return int(found[1]) if found else 0


@pytest.mark.slow  # over a minute, most of it pip's
def test_the_tutorial_does_what_it_says(environment, tmp_path):
    pytest.importorskip("pip")
    home = tmp_path / "empty"
    home.mkdir()
    said = {}
    for kind, text in FENCE.findall((ROOT / "docs" / "plugins" / "tutorial.md").read_text(encoding="utf-8")):
        if kind == "sh":
            done = environment.shell(text, home)
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            said[text] = done.stdout
        else:
            path = re.match(r"# (kdmesh-foo/\S+)\n", text)
            assert kind in ("python", "yaml") and path, f"neither a command nor a file: {text}"
            file = home / path[1]
            assert file.exists(), f"{path[1]} is no file that `plugins new` wrote"
            file.write_text(text.partition("\n")[2], encoding="utf-8")
    first, second = (out for command, out in said.items() if command.endswith("pytest kdmesh-foo\n"))
    assert passed(second) == passed(first) + 2  # one check more is declared, and one is the tutorial's own
    (shown,) = (out for command, out in said.items() if "plugins show" in command)
    assert shown.startswith("foo (consensus): ") and "kdmesh-foo 0.1.0" in shown
    summaries = [json.loads(path.read_text()) for path in home.glob("runs/foo/*/summary.json")]
    assert {summary["backend"] for summary in summaries} == {"inline", "ray"}
    inline, ray = ({name: about["weights_sha256"] for name, about in s["agents"].items()} for s in summaries)
    assert inline == ray and len(set(inline.values())) == 4
    (counted,) = (out for command, out in said.items() if command.startswith("grep"))
    assert [line.split()[0] for line in counted.splitlines()] == ["2"] * 4
    assert [path.name for path in (home / "dist").iterdir()] == ["kdmesh_foo-0.1.0-py3-none-any.whl"]
