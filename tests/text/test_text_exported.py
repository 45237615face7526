"""Exported folders of every architecture, way of tuning and tokenizer answer as the run's modules did."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported import Case, cases, prove

FAST = [
    Case("gpt2", "lora tied", "no bos", "prompt"),
    Case("gemma2", "plain", "eos unlike the config's", "text"),
    Case("llama", "prefix", "bos", "chat"),
    Case("roberta", "lora", "no bos"),
    Case("qwen2", "plain", "no bos", dtype="bfloat16"),
]


@pytest.mark.parametrize("case", FAST, ids=" ".join)
def test_a_folder_answers_as_the_run_did(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    assert case in cases()
    assert prove(case, tmp_path) <= 1e-5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_folder_answers_as_the_run_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("peft")
    largest = 0.0
    for number, case in enumerate(every := cases()):
        apart = prove(case, tmp_path / str(number))
        assert apart <= 1e-5, case
        largest = max(largest, apart)
    with capsys.disabled():
        print(
            f"\n{len(every)} of {len(every)} exported folders answer as the run did; largest difference {largest:.1e}"
        )
