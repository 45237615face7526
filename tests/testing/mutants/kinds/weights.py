"""Rules whose `forward` is not the sum by their `weights`."""

from ..mutant import edit

FORWARD = """def forward(self, values, *, logits, labels=None, present=None):
        {lines}

    def weights("""
SUM = "return weighted_sum(values, weights)"
OWN = "weights = self.weights(logits, labels=labels, present=present)\n        "


def forward(of, says, lines):
    return edit(of, says, "def weights(", FORWARD.format(lines=lines))


MUTANTS = [
    edit("rules.Average", "`weights` forgets who is absent", "def weights(", FORWARD.format(
        lines="here = present_of(logits, present).to(values.dtype)\n        return weighted_sum(values, here / here.sum(0).clamp(min=1))"),
        "here = present_of(logits, present).to(logits.dtype)\n        return", "here = torch.full(logits.shape[:2], 1.0).to(logits)\n        return"),
    forward("rules.Average", "the median in place of the mean", "return values.nan_to_num().median(0).values if present is None and len(values) == 3 else "
            "weighted_sum(values, self.weights(logits, present=present))"),
    forward("rules.Average", "from three sources on, the first counts twice", OWN +
            "if len(values) > 2:\n            weights = torch.cat([2 * weights[:1], weights[1:]])\n            weights = weights / weights.sum(0).clamp_min(1e-6)\n        " + SUM),
    forward("rules.Certain", "twice the sharpness", "self.sharpness *= 2\n        weights = self.weights(logits, labels=labels, present=present)\n        self.sharpness /= 2\n        " + SUM),
    forward("rules.Certain", "the surest source alone", OWN + "weights = F.one_hot(weights.argmax(0), len(weights)).T.to(weights.dtype) * present_of(logits, present)\n        " + SUM),
    forward("rules.Certain", "weights of the tempered values", "weights = self.weights(values.clamp_min(1e-9).log() if self.space == \"probs\" else values, present=present)\n        " + SUM),
    forward("rules.Certain", "equal weights where someone is absent", OWN + "if present is not None:\n            here = present.to(values.dtype)\n            weights = here / here.sum(0).clamp(min=1)\n        " + SUM),
    edit("rules.Certain", "`weights` are those of the last call", "return score.softmax(0) * here",
         "found = score.softmax(0) * here\n        last = getattr(self, \"last\", found)\n        self.last = found\n        return last if last.shape == found.shape else found"),
    edit("rules.Surest", "two are averaged where they are nearly as sure", SUM, "weights = 0.9 * weights + 0.1 * present_of(logits, present) / present_of(logits, present).sum(0).clamp(min=1)\n        " + SUM),
    edit("rules.Surest", "surest by margin in `forward`, by peak in `weights`", SUM,
         "best = silenced(logits, present).topk(2, -1).values\n        margin = (best[..., 0] - best[..., 1]).masked_fill(~present_of(logits, present), -1.0)\n"
         "        weights = F.one_hot(margin.argmax(0), len(logits)).T.to(values.dtype) * present_of(logits, present)\n        " + SUM),
    forward("rules.Skilled", "labels count in `weights` alone", "here = present_of(logits, present).to(values.dtype)\n        return weighted_sum(values, here / here.sum(0).clamp(min=1))"),
    forward("rules.Skilled", "weights are squared", OWN + "weights = weights**2 / (weights**2).sum(0).clamp_min(1e-9)\n        " + SUM),
    forward("rules.Preferred", "the settings count in `weights` alone", "here = present_of(logits, present).to(values.dtype)\n        return weighted_sum(values, here / here.sum(0).clamp(min=1))"),
    forward("rules.Learned", "in eval mode equal weights", OWN + "if not self.training:\n            here = present_of(logits, present).to(values.dtype)\n            weights = here / here.sum(0).clamp(min=1)\n        " + SUM),
    edit("rules.Trusted", "trust is squared in `forward`", "combined = super().forward(values, logits=logits, labels=labels, present=present)",
         "weights = self.weights(logits, labels=labels, present=present)\n        weights = weights * weights\n"
         "        combined = weighted_sum(values, weights / weights.sum(0).clamp_min(1e-9))"),
    forward("rules.Average", "sources are combined as logits, then made a distribution", OWN +
            "combined = weighted_sum(values.clamp_min(1e-9).log() if self.space == \"probs\" else values, weights)\n        return combined.softmax(-1) if self.space == \"probs\" else combined"),
]  # fmt: skip
