"""Means over the sum of weights, over the samples that count, over batches or over all sources."""

from ..mutant import edit

MUTANTS = [
    edit(
        "objectives.Squares",
        "divided by the sum of weights",
        "return batchmean((student - target) ** 2, weights)",
        (
            "each = ((student - target) ** 2).sum(-1)\n"
            "        return each.mean() if weights is None else (each * weights).sum() / "
            "weights.sum()"
        ),
    ),
    edit(
        "objectives.Squares",
        "divided by how many samples count",
        "return batchmean((student - target) ** 2, weights)",
        (
            "each = ((student - target) ** 2).sum(-1)\n"
            "        return each.mean() if weights is None else (each * weights).sum() / (weights != "
            "0).sum().clamp(min=1)"
        ),
    ),
    edit(
        "objectives.Cosine",
        "weights are made to have the mean 1",
        "return batchmean(1 - angle, weights)",
        "return batchmean(1 - angle, None if weights is None else weights / weights.mean())",
    ),
    edit(
        "objectives.Cosine",
        "the largest weight is made 1",
        "return batchmean(1 - angle, weights)",
        "return batchmean(1 - angle, None if weights is None else weights / weights.max())",
    ),
    edit(
        "objectives.Decoupled",
        "weights are a mask, and the mean is over what it keeps",
        "return batchmean(first.sum(-1) + self.others * second.sum(-1), weights)",
        (
            "each = first.sum(-1) + self.others * second.sum(-1)\n"
            "        return each.mean() if weights is None else each[weights > 0].mean()"
        ),
    ),
    edit(
        "objectives.Softened",
        "weights are a mask",
        "batchmean(elements, weights)",
        "batchmean(elements, None if weights is None else (weights > 0).to(elements.dtype))",
    ),
    edit(
        "objectives.Adapted",
        "divided by the sum of weights",
        "return batchmean(((mapped - target) ** 2).flatten(1).mean(1), weights)",
        (
            "each = ((mapped - target) ** 2).flatten(1).mean(1)\n"
            "        total = len(each) if weights is None else weights.sum()\n"
            "        return (each if weights is None else each * weights).sum() / total"
        ),
    ),
    edit(
        "objectives.Centred",
        "divided by how many samples count",
        "loss = batchmean(-(p * student.log_softmax(-1)), weights)",
        (
            "loss = batchmean(-(p * student.log_softmax(-1)), weights)\n"
            "        loss = loss if weights is None else loss * len(weights) / (weights != 0).sum()"
        ),
    ),
    edit(
        "objectives.Centred",
        "one term weighs samples and the other does not",
        "loss = batchmean(-(p * student.log_softmax(-1)), weights)",
        ("loss = batchmean(-(p * student.log_softmax(-1)), weights) + 0.1 * student.logsumexp(-1).mean()"),
    ),
    edit(
        "objectives.Relations",
        "divided by the pairs that count",
        "return pairs.sum() / (len(student) or 1) ** 2",
        ("live = len(student) if weights is None else (weights != 0).sum()\n        return pairs.sum() / live**2"),
    ),
    edit(
        "objectives.Relations",
        "weights are made to sum to 1",
        "weights = weights.to(pairs.dtype)",
        "weights = len(weights) * weights.to(pairs.dtype) / weights.sum()",
    ),
    edit(
        "rules.Average",
        "divided by all sources, present or not",
        "here / here.sum(0).clamp(min=1)",
        "here / len(here)",
    ),
    edit(
        "rules.Average",
        "divided by how many are present in the batch's mean",
        "here.sum(0).clamp(min=1)",
        "here.sum(0).mean().clamp(min=1)",
    ),
    edit(
        "rules.Experts",
        "divided by all sources",
        "count = here.sum(0).clamp(min=1)[:, None]",
        "count = len(here)",
    ),
    edit(
        "rules.Unanimous",
        "divided by how many are present in the first row",
        "count = here.sum(0).clamp(min=1)[:, None]",
        "count = here[:, 0].sum().clamp(min=1)",
    ),
    edit(
        "rules.Preferred",
        "divided by the weights of the whole batch",
        "mass / mass.sum(0).clamp_min(1e-6)",
        "mass / mass.sum().clamp_min(1e-6) * mass.shape[1]",
    ),
    edit(
        "metrics.TopK",
        "a mean of batches' means",
        ("self.right += int(self.hits(answers).sum())\n        self.rows += len(answers)"),
        ("self.right += float(self.hits(answers).float().mean())\n        self.rows += 1"),
    ),
    edit(
        "metrics.Brier",
        "a running mean that forgets how many rows it is of",
        ("self.total += self.distances(answers).double().sum().item()\n        self.rows += len(answers)"),
        (
            "mean = self.distances(answers).double().mean().item()\n"
            "        self.total = (self.total * self.rows + mean) / (self.rows + 1)\n"
            "        self.rows += 1"
        ),
        "return self.total / self.rows if self.rows else None",
        "return self.total if self.rows else None",
    ),
    edit(
        "metrics.Spread",
        "the deviation within batches, averaged",
        "self.squares += (apart**2).sum().item()",
        "self.squares += (apart**2).sum().item() - apart.sum().item() ** 2 / len(apart)",
        "self.squares / self.count - mean**2",
        "self.squares / self.count",
    ),
    edit(
        "metrics.PerCharacter",
        "divided by rows",
        "self.characters += answers.characters",
        "self.characters += len(answers)",
    ),
]
