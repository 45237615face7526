"""Rules whose rows depend on the rest of the batch, on its size or order, or on the order of sources."""

from ..mutant import edit

MUTANTS = [
    edit(
        "rules.Certain",
        "entropies are scaled by the batch's mean",
        "score = (-self.sharpness * entropy)",
        "score = (-self.sharpness * entropy / entropy.mean())",
    ),
    edit(
        "rules.Certain",
        "scores are scaled by the batch's largest",
        "score = (-self.sharpness * entropy)",
        "score = (-self.sharpness * entropy / entropy.max())",
    ),
    edit(
        "rules.Certain",
        "the batch's mean certainty decides for all rows",
        "score = (-self.sharpness * entropy)",
        ("entropy = entropy.mean(1, keepdim=True).expand_as(entropy)\n        score = (-self.sharpness * entropy)"),
    ),
    edit(
        "rules.Certain",
        "scores add up along the batch",
        "score = (-self.sharpness * entropy)",
        "score = (-self.sharpness * entropy.cumsum(1))",
    ),
    edit(
        "rules.Certain",
        "a batch of one loses its axis",
        "entropy = -(log_p.exp() * log_p).sum(-1)",
        "entropy = -(log_p.exp() * log_p).sum(-1).squeeze(-1)",
    ),
    edit(
        "rules.Average",
        "sources that are present more often in the batch have more say",
        "here = present_of(logits, present).to(logits.dtype)",
        ("here = present_of(logits, present).to(logits.dtype)\n        here = here * here.mean(1, keepdim=True)"),
    ),
    edit(
        "rules.Average",
        "later sources have a little more say",
        "here = present_of(logits, present).to(logits.dtype)",
        (
            "here = present_of(logits, present).to(logits.dtype)\n"
            "        here = here * torch.linspace(1, 1.1, len(here)).to(here)[:, None]"
        ),
    ),
    edit(
        "rules.Surest",
        "the surest in the batch's mean speaks for all rows",
        "peak = silenced(logits, present).softmax(-1).amax(-1)",
        (
            "peak = silenced(logits, present).softmax(-1).amax(-1)\n"
            "        peak = peak.mean(1, keepdim=True).expand_as(peak)"
        ),
    ),
    edit(
        "rules.Surest",
        "each row is chosen by the one before it",
        "best = peak.masked_fill(~here, -1.0).argmax(0)",
        ("best = peak.masked_fill(~here, -1.0).argmax(0)\n        best = torch.where(here.all(), best.roll(1), best)"),
    ),
    edit(
        "rules.Experts",
        "logits are centred over the batch",
        "mean = silenced(logits, present).sum(0) / count",
        ("mean = silenced(logits, present).sum(0) / count\n        mean = mean - mean.mean(0, keepdim=True)"),
    ),
    edit(
        "rules.Experts",
        "sources are averaged from left to right by halves",
        "mean = silenced(logits, present).sum(0) / count",
        (
            "mean = silenced(logits, present).sum(0) / count\n"
            "        if present is None:\n"
            "            mean = logits[0]\n"
            "            for other in logits[1:]:\n"
            "                mean = (mean + other) / 2"
        ),
    ),
    edit(
        "rules.Unanimous",
        "compared with the first source, present or not",
        "first = vote.gather(0, here.int().argmax(0)[None])",
        "first = vote[:1]",
    ),
    edit(
        "rules.Unanimous",
        "the first source speaks for all",
        "return silenced(values, present).sum(0) / count, agree",
        ("return (silenced(values, present).sum(0) / count if present is not None else values[0]), agree"),
    ),
    edit(
        "rules.Unanimous",
        "answers only where half of the batch agrees",
        "return silenced",
        ("agree = agree & (agree.float().mean() >= 0.5)\n        return silenced"),
    ),
    edit(
        "rules.Skilled",
        "the batch's mean loss decides for all rows",
        "score = own.masked_fill(~here, -torch.inf)",
        "score = own.mean(1, keepdim=True).expand_as(own).masked_fill(~here, -torch.inf)",
    ),
    edit(
        "rules.Skilled",
        "labels of the row before",
        "labels.expand(len(logits), -1)",
        "labels.roll(1).expand(len(logits), -1)",
    ),
    edit(
        "rules.Preferred",
        "weights by place, not by name",
        "share = [self.given.get(name, 1.0) for name in self.names[: len(logits)]]",
        "share = [*self.given.values(), *[1.0] * len(self.names)][: len(logits)]",
    ),
    edit(
        "rules.Trusted",
        "one absent source in the batch changes all rows",
        "mass = trust * here",
        "mass = trust * here * (1 + here.all(1, keepdim=True))",
    ),
]
