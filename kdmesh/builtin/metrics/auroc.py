"""Area under the ROC curve, one class against the rest, averaged over classes.

Hanley and McNeil, "The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC) Curve", 1982. The
mean over classes: Fawcett, "An Introduction to ROC Analysis", 2006, where each class has the same weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdmesh.contracts.metric import Answers, Metric


class AUROC(Metric):
    """``mean_c P(p_c of a row of class c > p_c of another row)``, ties counting half, from 0 to 1; chance is 0.5.

    Of two classes the second's probability alone is ranked. Every row's probabilities are kept, on the CPU.

    Not defined where a class has no row, or where the answers have no column for a class.
    """

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.known, self.total = True, 0

    def update(self, answers: Answers) -> None:
        """Keep probabilities and labels."""
        self.known, self.total = self.known and answers.classes is None, answers.total
        self.seen.append(answers.p.cpu())
        self.labels.append(answers.labels.cpu())

    def undefined(self) -> str:
        """Which class cannot be ranked."""
        if not self.seen:
            return "no row"
        if not self.known:
            return "the answers have no column for some classes"
        counts = torch.bincount(torch.cat(self.labels), minlength=self.total)
        missing = (counts == 0).nonzero().flatten().tolist()
        return f"class {missing[0]} has no row" if missing else "one class alone" if self.total < 2 else ""

    def compute(self) -> float | None:
        """The mean area; None where it is not defined."""
        if self.undefined():
            return None
        p, labels = torch.cat(self.seen), torch.cat(self.labels)
        classes = [1] if self.total == 2 else range(self.total)
        return sum(area(p[:, c], labels == c) for c in classes) / len(classes)


def area(score: Tensor, positive: Tensor) -> float:
    """The share of pairs of a positive and a negative row that ``score [N]`` ranks right, ties counting half."""
    counts: Tensor
    _, place, counts = score.unique(return_inverse=True, return_counts=True)
    ranks = counts.cumsum(0).double() - (counts.double() - 1) / 2  # of rows with one score their mean, from 1
    ones = int(positive.sum())
    above = ranks[place][positive].sum().item() - ones * (ones + 1) / 2
    return above / (ones * (len(positive) - ones))
