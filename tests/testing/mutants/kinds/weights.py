"""Rules whose `forward` is not the sum by their `weights`."""

from ..mutant import edit

MUTANTS = [
    edit(
        "rules.Average",
        "`weights` forgets who is absent",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        here = present_of(logits, present).to(values.dtype)\n"
            "        return weighted_sum(values, here / here.sum(0).clamp(min=1))\n"
            "\n"
            "    def weights("
        ),
        ("here = present_of(logits, present).to(logits.dtype)\n        return"),
        ("here = torch.full(logits.shape[:2], 1.0).to(logits)\n        return"),
    ),
    edit(
        "rules.Average",
        "the median in place of the mean",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        return values.nan_to_num().median(0).values if present is None and len(values) "
            "== 3 else weighted_sum(values, self.weights(logits, present=present))\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Average",
        "from three sources on, the first counts twice",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        if len(values) > 2:\n"
            "            weights = torch.cat([2 * weights[:1], weights[1:]])\n"
            "            weights = weights / weights.sum(0).clamp_min(1e-6)\n"
            "        return weighted_sum(values, weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Certain",
        "twice the sharpness",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        self.sharpness *= 2\n"
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        self.sharpness /= 2\n"
            "        return weighted_sum(values, weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Certain",
        "the surest source alone",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        weights = F.one_hot(weights.argmax(0), len(weights)).T.to(weights.dtype) * "
            "present_of(logits, present)\n"
            "        return weighted_sum(values, weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Certain",
        "weights of the tempered values",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            '        weights = self.weights(values.clamp_min(1e-9).log() if self.space == "probs" '
            "else values, present=present)\n"
            "        return weighted_sum(values, weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Certain",
        "equal weights where someone is absent",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        if present is not None:\n"
            "            here = present.to(values.dtype)\n"
            "            weights = here / here.sum(0).clamp(min=1)\n"
            "        return weighted_sum(values, weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Certain",
        "`weights` are those of the last call",
        "return score.softmax(0) * here",
        (
            "found = score.softmax(0) * here\n"
            '        last = getattr(self, "last", found)\n'
            "        self.last = found\n"
            "        return last if last.shape == found.shape else found"
        ),
    ),
    edit(
        "rules.Surest",
        "two are averaged where they are nearly as sure",
        "return weighted_sum(values, weights)",
        (
            "weights = 0.9 * weights + 0.1 * present_of(logits, present) / present_of(logits, "
            "present).sum(0).clamp(min=1)\n"
            "        return weighted_sum(values, weights)"
        ),
    ),
    edit(
        "rules.Surest",
        "surest by margin in `forward`, by peak in `weights`",
        "return weighted_sum(values, weights)",
        (
            "best = silenced(logits, present).topk(2, -1).values\n"
            "        margin = (best[..., 0] - best[..., 1]).masked_fill(~present_of(logits, "
            "present), -1.0)\n"
            "        weights = F.one_hot(margin.argmax(0), len(logits)).T.to(values.dtype) * "
            "present_of(logits, present)\n"
            "        return weighted_sum(values, weights)"
        ),
    ),
    edit(
        "rules.Skilled",
        "labels count in `weights` alone",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        here = present_of(logits, present).to(values.dtype)\n"
            "        return weighted_sum(values, here / here.sum(0).clamp(min=1))\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Skilled",
        "weights are squared",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        weights = weights**2 / (weights**2).sum(0).clamp_min(1e-9)\n"
            "        return weighted_sum(values, weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Preferred",
        "the settings count in `weights` alone",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        here = present_of(logits, present).to(values.dtype)\n"
            "        return weighted_sum(values, here / here.sum(0).clamp(min=1))\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Learned",
        "in eval mode equal weights",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        if not self.training:\n"
            "            here = present_of(logits, present).to(values.dtype)\n"
            "            weights = here / here.sum(0).clamp(min=1)\n"
            "        return weighted_sum(values, weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Trusted",
        "trust is squared in `forward`",
        "combined = super().forward(values, logits=logits, labels=labels, present=present)",
        (
            "weights = self.weights(logits, labels=labels, present=present)\n"
            "        weights = weights * weights\n"
            "        combined = weighted_sum(values, weights / weights.sum(0).clamp_min(1e-9))"
        ),
    ),
    edit(
        "rules.Average",
        "sources are combined as logits, then made a distribution",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            '        combined = weighted_sum(values.clamp_min(1e-9).log() if self.space == "probs" '
            "else values, weights)\n"
            '        return combined.softmax(-1) if self.space == "probs" else combined\n'
            "\n"
            "    def weights("
        ),
    ),
]
