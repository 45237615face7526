"""Metrics of written texts, against values computed by hand, and ROUGE-L against a search over all subsequences."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest
import torch

from kdmesh.builtin.metrics.answer_length import AnswerLength
from kdmesh.builtin.metrics.distinct_n import DistinctN
from kdmesh.builtin.metrics.exact_match import ExactMatch
from kdmesh.builtin.metrics.numeric_answer import NumericAnswer
from kdmesh.builtin.metrics.perplexity import Perplexity
from kdmesh.builtin.metrics.repetition import Repetition
from kdmesh.builtin.metrics.rouge_l import RougeL, longest_common
from kdmesh.builtin.metrics.verifier import Verifier
from kdmesh.errors import MeshError
from kdmesh.filters import WrittenText
from kdmesh.metrics import Answers, Metric


def answers(*pairs: tuple[str, str]) -> Answers:
    """Texts, each with what the data answer."""
    texts = [WrittenText(at, 0, "?", said, len(said.split()), True, given) for at, (said, given) in enumerate(pairs)]
    return Answers(torch.zeros(len(texts), 0), torch.zeros(len(texts), dtype=torch.int64), texts=texts)


def figure(metric: Metric, *pairs: tuple[str, str]) -> float | None:
    metric.update(answers(*pairs))
    found = metric.compute()
    assert found is None or isinstance(found, float)
    return found


def test_exact_match() -> None:
    pairs = (" Rome ", "Rome"), ("rome", "Rome"), ("Rome.", "Rome"), ("", "Rome"), ("anything", "")
    assert figure(ExactMatch(None, False), *pairs) == 1 / 4  # the last prompt has no answer
    assert figure(ExactMatch(None, True), *pairs) == 2 / 4
    assert (
        figure(ExactMatch(r"#### (\S+)", False), ("so #### 4", "2 + 2 #### 4"), ("4", "#### 4"), ("#### 4", "4"))
        == 2 / 3
    )
    empty = ExactMatch(None, False)
    assert figure(empty, ("x", "")) is None and empty.undefined() == "the data answer nothing"


def test_numeric_answer() -> None:
    pairs = ("it is 1,000.0", "1000"), ("first 3, then 4", "4"), ("4, not 3", "4"), ("four", "4"), ("9", "none")
    assert figure(NumericAnswer(None), *pairs) == 2 / 4
    assert figure(NumericAnswer("#### (.*)"), ("1 #### 7", "6 #### 7.0"), ("7", "#### 7")) == 1 / 2


def test_rouge_l_by_hand() -> None:
    # Lin 2004, section 3.1, with beta 1: reference `police killed the gunman`
    given = "police killed the gunman"
    assert figure(RougeL(1.0), ("police kill the gunman", given)) == pytest.approx(3 / 4)
    assert figure(RougeL(1.0), ("the gunman kill police", given)) == pytest.approx(2 / 4)
    # LCS 2 of `a b`, m = 4 words, n = 3: R = 1/2, P = 2/3
    assert figure(RougeL(1.0), ("A, x b!", "a b c d")) == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))
    assert figure(RougeL(2.0), ("a x b", "a b c d")) == pytest.approx(5 * (1 / 2) * (2 / 3) / (1 / 2 + 4 * 2 / 3))
    assert figure(RougeL(1.0), ("", "a b"), ("a b", "a b"), ("a", "...")) == 1 / 2


def test_the_longest_common_subsequence_is_that_of_a_search() -> None:
    draw = random.Random(1)
    for _ in range(60):
        one, other = ([draw.choice("abc") for _ in range(draw.randint(0, 7))] for _ in range(2))
        found = max(
            size
            for size in range(min(len(one), len(other)) + 1)
            if {*combinations(one, size)} & {*combinations(other, size)}
        )
        assert longest_common(one, other) == found


def test_repetition_and_distinct_runs() -> None:
    # a b | b a | a b | b c: 3 of 4 are different
    assert figure(Repetition(2), ("a b a b c", ""), ("one", "")) == pytest.approx(1 / 4)
    assert figure(Repetition(1), ("a a a a", ""), ("a b", "")) == pytest.approx((3 / 4 + 0) / 2)
    # runs a b, b a, b c, c d of 5 + 3 words
    assert figure(DistinctN(2), ("a b a b c", ""), ("b c d", "")) == 4 / 8
    assert figure(DistinctN(1), ("a b a b c", ""), ("b c d", "")) == 4 / 8
    assert figure(DistinctN(1), ("", "")) is None


def test_length_is_in_tokens() -> None:
    assert figure(AnswerLength(), ("one two", ""), ("", ""), ("one", "")) == 1.0


def test_perplexity_is_of_the_mean_loss() -> None:
    metric = Perplexity()
    probs = torch.tensor([[0.5, 0.5], [0.1, 0.9]])
    metric.update(Answers(probs.log(), torch.tensor([0, 0])))
    assert metric.compute() == pytest.approx(1 / math.sqrt(0.5 * 0.1))


def shorter(text: WrittenText, than: int = 5) -> bool:
    return len(text.text) < than


def share(text: WrittenText) -> float:
    if not text.text:
        raise RuntimeError("nothing to divide by")
    return text.text.count("a") / len(text.text) if text.text != "?" else math.nan


def test_a_verifier_is_a_metric_of_ones_own() -> None:
    assert figure(Verifier(f"{__name__}:shorter", {}), ("four", ""), ("longer", "")) == 1 / 2
    assert figure(Verifier(f"{__name__}:shorter", {"than": 9}), ("four", ""), ("longer", "")) == 1.0
    assert figure(Verifier(f"{__name__}:share", {}), ("ab", ""), ("a", "")) == 3 / 4
    with pytest.raises(ValueError, match="raised RuntimeError: nothing to divide by, on the text to"):
        figure(Verifier(f"{__name__}:share", {}), ("", ""))
    with pytest.raises(ValueError, match="gave nan for the text to"):
        figure(Verifier(f"{__name__}:share", {}), ("?", ""))
    with pytest.raises(MeshError, match="no function that says by its annotation"):
        Verifier(f"{__name__}:figure", {})
