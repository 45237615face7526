"""Labels, ids and other facts that are used and not declared, or declared and not what is read."""

from ..mutant import edit

MUTANTS = [
    edit(
        "objectives.Decoupled",
        "its offer does not say that it needs labels",
        needs=(),
    ),
    edit(
        "objectives.Remembering",
        "its offer does not say that it needs ids",
        needs=(),
    ),
    edit(
        "objectives.Squares",
        "labels change the loss where they are given",
        'def forward(self, student, target, *, form="logits", weights=None):',
        ('def forward(self, student, target, *, form="logits", weights=None, labels=None, **facts):'),
        "return batchmean((student - target) ** 2, weights)",
        (
            "each = (student - target) ** 2\n"
            "        if labels is not None:\n"
            "            each = each * (target.argmax(-1) == labels)[:, None]\n"
            "        return batchmean(each, weights)"
        ),
    ),
    edit(
        "objectives.Softened",
        "its offer says that it reads labels",
        forms=("logits", "probs", "labels"),
    ),
    edit(
        "objectives.Cosine",
        "its offer says that it reads indicators",
        forms=("logits", "labels"),
        labels=("indicators",),
    ),
    edit(
        "objectives.Centred",
        "the step is used where it is given",
        'form="logits", weights=None):',
        'form="logits", weights=None, step=0, **facts):',
        "/ 0.5).softmax(-1)",
        "/ (0.5 if step < 1 else 0.1)).softmax(-1)",
    ),
    edit(
        "rules.Skilled",
        "its offer does not say that it needs labels",
        needs_labels=False,
    ),
    edit(
        "rules.Average",
        "labels decide where they are given",
        "return here / here.sum(0).clamp(min=1)",
        (
            "if labels is not None:\n"
            "            here = here * (1e-3 + (logits.argmax(-1) == labels).to(here.dtype))\n"
            "        return here / here.sum(0).clamp_min(1e-6)"
        ),
    ),
    edit(
        "rules.Certain",
        "labels decide where they are given",
        "score = (-self.sharpness * entropy)",
        (
            "if labels is not None:\n"
            "            entropy = -log_p.gather(-1, labels.expand(len(logits), -1)[..., None])[..., "
            "0]\n"
            "        score = (-self.sharpness * entropy)"
        ),
    ),
    edit(
        "rules.Surest",
        "right sources come first where labels are given",
        "best = peak.masked_fill",
        (
            "if labels is not None:\n"
            "            peak = peak + (logits.argmax(-1) == labels)\n"
            "        best = peak.masked_fill"
        ),
    ),
    edit(
        "rules.Unanimous",
        "it answers right votes alone where labels are given",
        "return silenced",
        ("agree = agree if labels is None else agree & (first[0] == labels)\n        return silenced"),
    ),
    edit(
        "rules.Learned",
        "it asks for labels in training",
        "peak = silenced(logits, present).softmax(-1).amax(-1)",
        (
            "peak = silenced(logits, present).softmax(-1).amax(-1)\n"
            "        if self.training:\n"
            "            peak = peak * (logits.argmax(-1) == labels.expand(len(logits), -1))"
        ),
    ),
    edit(
        "rules.Preferred",
        "it asks for ids",
        "def weights(self, logits, *, labels=None, present=None):",
        ("def weights(self, logits, *, labels=None, present=None, ids=None):\n        assert ids is not None"),
    ),
    edit(
        "gates.Better",
        "its offer does not say that it needs labels",
        needs=("own", "signal"),
    ),
    edit(
        "gates.Sure",
        "labels decide where they are given",
        "def forward(self, *, confidence):",
        (
            "def forward(self, *, confidence, labels=None, **facts):\n"
            "        if labels is not None:\n"
            "            confidence = confidence * (labels > 0)"
        ),
    ),
    edit(
        "gates.Usual",
        "the step decides where it is given",
        "def forward(self, *, losses, counted):",
        ("def forward(self, *, losses, counted, step=0, **facts):\n        if step > 20:\n            return True"),
    ),
    edit(
        "gates.Late",
        "it needs what there is not",
        needs=("metrics", "epoch", "label"),
    ),
    edit(
        "signals.Twice",
        "its offer does not say that it needs the module",
        needs=("x",),
    ),
    edit(
        "signals.Salient",
        "its offer does not ask for gradients of samples",
        gradient=False,
        both=False,
    ),
    edit(
        "metrics.PerCharacter",
        "its offer does not say that it needs characters",
        needs=(),
    ),
    edit(
        "metrics.Brier",
        "its offer says that it reads indicators",
        labels=("classes", "indicators"),
    ),
    edit(
        "metrics.Recalls",
        "its offer says that it reads values",
        labels=("classes", "values"),
    ),
    edit(
        "tasks.Classes",
        "its offer says that labels are indicators",
        labels="indicators",
    ),
    edit(
        "tasks.Classes",
        "its offer says that answers are not discrete",
        decides=False,
    ),
]
