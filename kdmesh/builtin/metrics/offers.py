"""The built-in metrics as offers: reading this imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from kdmesh.offers import Config, MetricOffer
from kdmesh.text.answers import finds, found


class FirstTenConfig(Config):
    """Settings of `ndcg`."""

    k: int = Field(10, ge=1, description="how many of the first candidates count")


class FirstThreeConfig(Config):
    """Settings of `recall_at_k`."""

    k: int = Field(3, ge=1, description="how many of the first candidates count")


class PatternConfig(Config):
    """Settings of `numeric_answer`."""

    pattern: str | None = Field(
        None, description="a regular expression whose last match is the answer, or its first group; by default all"
    )

    _compiles = field_validator("pattern")(finds)


class FoundConfig(Config):
    """Settings of `pattern`."""

    match: str = Field(description="a regular expression; a text counts 1 where it is found anywhere, else 0")

    _compiles = field_validator("match")(found)


class MatchConfig(PatternConfig):
    """Settings of `exact_match`."""

    words: bool = Field(False, description="compare words and signs alone, without case and space")


class RougeConfig(Config):
    """Settings of `rouge_l`."""

    beta: float = Field(1.0, gt=0, description="how much more recall counts than precision; 1: as much")


class FourWordsConfig(Config):
    """Settings of `repetition`."""

    n: int = Field(4, ge=1, description="words of a run")


class TwoWordsConfig(Config):
    """Settings of `distinct_n`."""

    n: int = Field(2, ge=1, description="words of a run")


class VerifierConfig(Config):
    """Settings of `verifier`."""

    path: str = Field(description="a function `package.module:function` of a text, annotated to return a bool or float")
    settings: dict[str, Any] = Field({}, description="what it is also called with, by name")

    @field_validator("path")
    @classmethod
    def _function(cls, value: str) -> str:
        if value.count(":") != 1:
            raise ValueError("write package.module:function")
        return value


ROOM = "kdmesh.builtin.metrics"


def _of_texts(name: str, made: str, summary: str, paper: str = "", **more: Any) -> MetricOffer:
    """A metric of what language models write, from 0 to 1 unless it is said otherwise."""
    more = {"lowest": 0.0, "highest": 1.0, "needs": ("texts",), **more}
    return MetricOffer(name, f"{ROOM}.{name}:{made}", summary=summary, paper=paper, **more)


METRICS = [
    MetricOffer(
        "accuracy",
        f"{ROOM}.accuracy:Accuracy",
        summary="share of rows whose likeliest class is their label",
        lowest=0.0,
        highest=1.0,
    ),
    MetricOffer(
        "loss",
        f"{ROOM}.loss:Loss",
        summary="cross-entropy of the labels, in nats, at temperature 1; of several labels a row their sum",
        paper="Good, Rational Decisions, 1952",
        higher=False,
        lowest=0.0,
        labels=("classes", "indicators"),
    ),
    MetricOffer(
        "ece",
        f"{ROOM}.ece:ECE",
        summary="expected calibration error at temperature 1, 15 bins",
        paper="Guo et al., On Calibration of Modern Neural Networks, 2017",
        higher=False,
        lowest=0.0,
        highest=1.0,
    ),
    MetricOffer(
        "r2",
        f"{ROOM}.r2:R2",
        summary="share of the labels' variance that is explained",
        paper="Wright, Correlation and Causation, 1921",
        highest=1.0,
        labels=("values",),
    ),
    MetricOffer(
        "mse",
        f"{ROOM}.mse:MeanSquaredError",
        summary="mean squared error",
        higher=False,
        lowest=0.0,
        labels=("values",),
    ),
    MetricOffer(
        "mae",
        f"{ROOM}.mae:MeanAbsoluteError",
        summary="mean absolute error",
        paper="Willmott and Matsuura, Advantages of the Mean Absolute Error, 2005",
        higher=False,
        lowest=0.0,
        labels=("values",),
    ),
    MetricOffer(
        "ndcg",
        f"{ROOM}.ndcg:NDCG",
        FirstTenConfig,
        "discounted gain of the first k candidates by the best there is, mean over queries; ties share ranks",
        "Järvelin and Kekäläinen, Cumulated Gain-Based Evaluation of IR Techniques, 2002",
        lowest=0.0,
        highest=1.0,
        labels=("relevance",),
    ),
    MetricOffer(
        "mrr",
        f"{ROOM}.mrr:MRR",
        summary="reciprocal rank of the first relevant candidate, mean over queries; ties share ranks",
        paper="Voorhees, The TREC-8 Question Answering Track Report, 1999",
        lowest=0.0,
        highest=1.0,
        labels=("relevance",),
    ),
    MetricOffer(
        "recall_at_k",
        f"{ROOM}.recall_at_k:RecallAtK",
        FirstThreeConfig,
        "share of the relevant candidates among the first k, mean over queries; ties share ranks",
        "Manning et al., Introduction to Information Retrieval, 2008",
        lowest=0.0,
        highest=1.0,
        labels=("relevance",),
    ),
    MetricOffer(
        "balanced_accuracy",
        f"{ROOM}.balanced_accuracy:BalancedAccuracy",
        summary="mean over classes of each one's accuracy",
        paper="Brodersen et al., The Balanced Accuracy and Its Posterior Distribution, 2010",
        lowest=0.0,
        highest=1.0,
        needs=("classes",),
    ),
    MetricOffer(
        "macro_f1",
        f"{ROOM}.macro_f1:MacroF1",
        summary="mean over classes, or labels, of each one's F1",
        paper="Van Rijsbergen, Information Retrieval, 1979",
        lowest=0.0,
        highest=1.0,
        labels=("classes", "indicators"),
        needs=("classes",),
    ),
    MetricOffer(
        "micro_f1",
        f"{ROOM}.micro_f1:MicroF1",
        summary="F1 of the answers about all labels together",
        paper="Van Rijsbergen, Information Retrieval, 1979",
        lowest=0.0,
        highest=1.0,
        labels=("indicators",),
    ),
    MetricOffer(
        "mean_average_precision",
        f"{ROOM}.average_precision:MeanAveragePrecision",
        summary="mean over labels of each one's average precision, rows ranked by its probability",
        paper="Salton and McGill, Introduction to Modern Information Retrieval, 1983",
        lowest=0.0,
        highest=1.0,
        labels=("indicators",),
    ),
    MetricOffer(
        "auroc",
        f"{ROOM}.auroc:AUROC",
        summary="area under the ROC curve, each class against the rest",
        paper="Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, 1982",
        lowest=0.0,
        highest=1.0,
        needs=("classes",),
    ),
    MetricOffer(
        "per_class_accuracy",
        f"{ROOM}.per_class_accuracy:PerClassAccuracy",
        summary="accuracy of each class",
        lowest=0.0,
        highest=1.0,
        needs=("classes",),
        scalar=False,
    ),
    MetricOffer(
        "confusion_matrix",
        f"{ROOM}.confusion_matrix:ConfusionMatrix",
        summary="how often each class is taken for each other",
        lowest=0.0,
        needs=("classes",),
        scalar=False,
    ),
    MetricOffer(
        "bits_per_character",
        f"{ROOM}.bits_per_character:BitsPerCharacter",
        summary="bits that a character of text costs at temperature 1, whatever the tokens",
        paper="Mikolov et al., Subword Language Modeling with Neural Networks, 2012",
        higher=False,
        lowest=0.0,
        needs=("characters",),
    ),
    MetricOffer(
        "perplexity",
        f"{ROOM}.perplexity:Perplexity",
        summary="exp of the mean loss of a row, or token, at temperature 1",
        paper="Jelinek et al., Perplexity: a measure of the difficulty of speech recognition tasks, 1977",
        higher=False,
        lowest=1.0,
    ),
    MetricOffer(
        "pair_accuracy",
        f"{ROOM}.pair_accuracy:PairAccuracy",
        summary="share of pairs whose chosen answer is likelier than the rejected one, by more than for the agent `of`",
        paper="Rafailov et al., Direct Preference Optimization, 2023",
        lowest=0.0,
        highest=1.0,
        needs=("pairs",),
    ),
    MetricOffer(
        "pair_margin",
        f"{ROOM}.pair_margin:PairMargin",
        summary="nats by which a chosen answer is likelier than the rejected one, more than for the agent `of`; mean",
        paper="Rafailov et al., Direct Preference Optimization, 2023",
        needs=("pairs",),
    ),
    _of_texts("answer_length", "AnswerLength", "mean tokens of what a model writes, in its own", highest=None),
    _of_texts(
        "distinct_n",
        "DistinctN",
        "different runs of n words in all that a model writes, for each word",
        "Li et al., A Diversity-Promoting Objective Function for Neural Conversation Models, 2016",
        config=TwoWordsConfig,
    ),
    _of_texts(
        "exact_match",
        "ExactMatch",
        "share of written texts whose answer is that of the data",
        config=MatchConfig,
        needs=("texts", "given"),
    ),
    _of_texts(
        "numeric_answer",
        "NumericAnswer",
        "share of written texts whose last number is that of the data",
        config=PatternConfig,
        needs=("texts", "given"),
    ),
    _of_texts("pattern", "Pattern", "share of written texts with a regular expression", config=FoundConfig),
    _of_texts(
        "repetition",
        "Repetition",
        "share of a written text's runs of n words that it has had already",
        "Welleck et al., Neural Text Generation With Unlikelihood Training, 2020",
        config=FourWordsConfig,
        higher=False,
    ),
    _of_texts(
        "rouge_l",
        "RougeL",
        "F of the longest common subsequence of words of a written text and the data's answer",
        "Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004",
        config=RougeConfig,
        needs=("texts", "given"),
    ),
    _of_texts(
        "verifier",
        "Verifier",
        "mean of what a function of one's own says of each written text",
        config=VerifierConfig,
        lowest=None,
        highest=None,
    ),
]
