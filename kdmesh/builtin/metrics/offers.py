"""The built-in metrics as offers: reading this imports no torch."""

from __future__ import annotations

from pydantic import Field

from kdmesh.offers import Config, MetricOffer


class FirstTenConfig(Config):
    """Settings of `ndcg`."""

    k: int = Field(10, ge=1, description="how many of the first candidates count")


class FirstThreeConfig(Config):
    """Settings of `recall_at_k`."""

    k: int = Field(3, ge=1, description="how many of the first candidates count")


ROOM = "kdmesh.builtin.metrics"
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
]
