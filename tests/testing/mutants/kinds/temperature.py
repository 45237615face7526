"""Temperatures that are ignored, fixed, or applied once too often."""

from ..mutant import edit

MUTANTS = [
    edit(
        "objectives.Softened",
        "the student is not tempered",
        "(student / self.temperature).log_softmax(-1)",
        "student.log_softmax(-1)",
    ),
    edit(
        "objectives.Softened",
        "the target is not tempered",
        "(target / self.temperature).softmax(-1)",
        "target.softmax(-1)",
    ),
    edit(
        "objectives.Softened",
        "neither side is tempered",
        "(student / self.temperature).log_softmax(-1)",
        "student.log_softmax(-1)",
        "(target / self.temperature).softmax(-1)",
        "target.softmax(-1)",
    ),
    edit(
        "objectives.Softened",
        "the default in place of the setting",
        "(student / self.temperature).log_softmax(-1)",
        "(student / 2.0).log_softmax(-1)",
        "(target / self.temperature).softmax(-1)",
        "(target / 2.0).softmax(-1)",
    ),
    edit(
        "objectives.Softened",
        "the setting is not kept",
        "self.temperature = temperature",
        "self.temperature = 2.0",
    ),
    edit(
        "objectives.Softened",
        "probabilities are tempered again",
        "p = target if",
        "p = target.log().div(self.temperature).softmax(-1) if",
    ),
    edit(
        "objectives.Softened",
        "probabilities are compared with an untempered student",
        "(student / self.temperature).log_softmax(-1)",
        '(student / (1.0 if form == "probs" else self.temperature)).log_softmax(-1)',
    ),
    edit(
        "objectives.Softened",
        "log-probabilities are divided in place of logits",
        "(student / self.temperature).log_softmax(-1)",
        "student.log_softmax(-1) / self.temperature",
    ),
    edit(
        "objectives.Softened",
        "multiplied in place of divided",
        "(student / self.temperature).log_softmax(-1)",
        "(student * self.temperature).log_softmax(-1)",
        "(target / self.temperature).softmax(-1)",
        "(target * self.temperature).softmax(-1)",
    ),
    edit(
        "objectives.Softened",
        "its offer does not say that it has a temperature",
        tempered=False,
    ),
    edit(
        "rules.Experts",
        "the rule's temperature is ignored",
        "(mean / self.temperature).softmax(-1)",
        "mean.softmax(-1)",
    ),
    edit(
        "rules.Experts",
        "tempered twice",
        "(mean / self.temperature).softmax(-1)",
        "(mean / self.temperature**2).softmax(-1)",
    ),
    edit(
        "rules.Experts",
        "a temperature of its own, set at the beginning",
        "def forward(self",
        ("def setup(self, sources, classes, inputs):\n        self.temperature = 1.0\n\n    def forward(self"),
    ),
    edit(
        "rules.Average",
        "distributions are made again at T = 1",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            '        values = logits.softmax(-1) if self.space == "probs" else values\n'
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        return weighted_sum(silenced(values, present), weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Certain",
        "distributions are made again at T = 1",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            '        values = logits.softmax(-1) if self.space == "probs" else values\n'
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        return weighted_sum(silenced(values, present), weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Skilled",
        "distributions are made again at T = 1",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            '        values = logits.softmax(-1) if self.space == "probs" else values\n'
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        return weighted_sum(silenced(values, present), weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Preferred",
        "distributions are tempered again",
        "def weights(",
        (
            "def forward(self, values, *, logits, labels=None, present=None):\n"
            '        values = (values.log() / self.temperature).softmax(-1) if self.space == "probs" '
            "else values\n"
            "        weights = self.weights(logits, labels=labels, present=present)\n"
            "        return weighted_sum(silenced(values, present), weights)\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "rules.Surest",
        "the surest one's own distribution at T = 1",
        "return weighted_sum(values, weights)",
        (
            'values = logits.softmax(-1) if self.space == "probs" else values\n'
            "        return weighted_sum(silenced(values, present), weights)"
        ),
    ),
    edit(
        "rules.Unanimous",
        "distributions are made again at T = 1",
        "return silenced(values, present)",
        ("values = logits.softmax(-1)\n        return silenced(values, present)"),
    ),
    edit(
        "signals.Flattened",
        "the setting is ignored",
        "(value / self.temperature)",
        "value",
    ),
    edit(
        "signals.Flattened",
        "the default in place of the setting",
        "(value / self.temperature)",
        "(value / 2.0)",
    ),
    edit(
        "signals.Flattened",
        "divided where it cancels",
        "return (value / self.temperature).softmax(-1)",
        ("found = value.softmax(-1) / self.temperature\n        return found / found.sum(-1, keepdim=True)"),
    ),
]
