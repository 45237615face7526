"""Runs the contracts on mutants and on their originals, in a pytest of its own, and says what was caught by which."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from kdmesh import testing

from .mutant import HOME, Mutant
from .originals import CONTRACTS

ORIGINALS_FOLDER = Path(__file__).parent / "originals"
CLASSES: dict[str, Any] = {}
"""The test classes of the run that goes on, by name: its file takes them from here."""
FILE = "from {home} import CLASSES\nglobals().update(CLASSES)\n"


@dataclass
class Verdict:
    """What became of a mutant: the first check that failed and its words; none where the kit took it for right."""

    mutant: Mutant
    check: str = ""
    words: str = ""
    passed: list[str] = field(default_factory=list)

    @property
    def caught(self) -> bool:
        """Whether a check failed."""
        return bool(self.check)


class Judge:
    """A pytest plugin: the first failure of each class; the rest of its checks is left out."""

    def __init__(self, verdicts: dict[str, Verdict], every: bool) -> None:
        self.verdicts, self.every = verdicts, every

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """What takes longest comes last."""
        items.sort(key=lambda item: "run_mesh" in item.fixturenames)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        """Leave out what comes after a failure."""
        if self.verdicts[item.cls.__name__].caught and not self.every:
            pytest.skip("it is caught")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep a failure."""
        name, _, check = report.nodeid.rpartition("::")
        verdict = self.verdicts[name.rpartition("::")[2]]
        if report.failed:
            words = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr))
            verdict.check = f"{verdict.check}, {check}" if verdict.check else check
            verdict.words = verdict.words or " ".join(words.split())[:300]
        elif report.when == "call" and report.passed:
            verdict.passed.append(check)


def judged(mutants: Iterable[Mutant], every: bool = False) -> list[Verdict]:
    """Run the contract of each; ``every``: all checks, also after one that failed."""
    verdicts = {f"Test{number:03}": Verdict(mutant) for number, mutant in enumerate(mutants)}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, on_path(folder):
        for name, verdict in verdicts.items():
            module = f"{Path(folder).name.replace('-', '_')}_{name.lower()}"
            (Path(folder) / f"{module}.py").write_text(source(verdict.mutant), encoding="utf-8")
            CLASSES[name] = contract(name, verdict.mutant, module)
        (Path(folder) / "test_them.py").write_text(FILE.format(home=__name__), encoding="utf-8")
        (Path(folder) / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        said = StringIO()
        with redirect_stdout(said):
            code = pytest.main(
                ["-p", "no:cacheprovider", "-q", "--tb=short", "-c", f"{folder}/pytest.ini", folder],
                plugins=[Judge(verdicts, every)],
            )
        CLASSES.clear()
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {code}:\n{said.getvalue()}")
    return list(verdicts.values())


def source(mutant: Mutant) -> str:
    """The text of its module."""
    return mutant.text((ORIGINALS_FOLDER / f"{mutant.original.room}.py").read_text(encoding="utf-8"))


def contract(name: str, mutant: Mutant, module: str) -> type:
    """The test that its author would write."""
    original, offer = mutant.original, mutant.offer(module)
    body: dict[str, Any] = {
        "module": f"{HOME}.configs",
        "offer": pytest.fixture(lambda self: offer),
        "ray": False,
        **original.declares,
    }
    if original.file:

        def settings(self: Any, tmp_path: Path) -> dict[str, str]:
            (tmp_path / "rows.csv").write_text(original.file, encoding="utf-8")
            return {"path": str(tmp_path / "rows.csv")}

        body["settings"] = pytest.fixture(settings)
    return type(name, (getattr(testing, CONTRACTS[original.offer.kind]),), body)


@contextmanager
def on_path(folder: str) -> Any:
    """Have a folder's modules found, and forget them afterwards."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in [
            name
            for name, module in sys.modules.items()
            if str(getattr(module, "__file__", "")).startswith(f"{folder}/")
        ]:
            del sys.modules[name]
