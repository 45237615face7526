"""State that measuring moves, that is in no state_dict, or modes that are not heeded."""

from ..mutant import edit

MUTANTS = [
    edit(
        "models.Whitened",
        "the mean moves in eval mode too",
        ("if self.training:\n            with torch.no_grad():\n                self.mean.lerp_(flat.mean(0), 0.1)"),
        ("with torch.no_grad():\n            self.mean.lerp_(flat.mean(0), 0.1)"),
    ),
    edit(
        "models.Whitened",
        "the mean is in no buffer",
        'self.register_buffer("mean", torch.zeros(size))',
        "self.mean = torch.zeros(size)",
    ),
    edit(
        "models.Whitened",
        "the mean is left out of the state",
        "torch.zeros(size))",
        "torch.zeros(size), persistent=False)",
    ),
    edit(
        "models.Whitened",
        "in eval mode the batch's own mean is taken off",
        "return self.head(flat - self.mean)",
        "return self.head(flat - (self.mean if self.training else flat.mean(0)))",
    ),
    edit(
        "models.Whitened",
        "the state is made at the first call",
        'self.register_buffer("mean", torch.zeros(size))',
        "self.mean = None",
        "if self.training:",
        ("if self.mean is None:\n            self.mean = torch.zeros_like(flat[0])\n        if self.training:"),
    ),
    edit(
        "models.Residual",
        "norms use the batch in eval mode",
        "self.stem = nn.Conv2d(input_shape[0], width, 3, padding=1)",
        (
            "self.stem = nn.Sequential(nn.Conv2d(input_shape[0], width, 3, padding=1),\n"
            "                                  nn.BatchNorm2d(width, track_running_stats=False))"
        ),
    ),
    edit(
        "models.Residual",
        "the norm behind the stem is always in train mode",
        "return self.head(self.block(self.stem(x)).mean((2, 3)))",
        (
            "found = F.batch_norm(self.stem(x), None, None, training=True)\n"
            "        return self.head(self.block(found).mean((2, 3)))"
        ),
    ),
    edit(
        "models.Dropped",
        "dropout in eval mode too",
        "F.dropout(hidden, self.rate, self.training)",
        "F.dropout(hidden, self.rate)",
    ),
    edit(
        "models.Dropped",
        "dropout in eval mode for several samples",
        "self.training)",
        "self.training or len(x) > 1)",
    ),
    edit(
        "models.Dropped",
        "answers depend on the batch before",
        "return self.head(hidden)",
        (
            'last = getattr(self, "last", hidden.mean(0).detach())\n'
            "        self.last = hidden.mean(0).detach()\n"
            "        return self.head(hidden + 0.1 * last)"
        ),
    ),
    edit(
        "models.Patches",
        "a running scale of scores moves in eval mode",
        "self.head = nn.Linear(width, classes)",
        ('self.head = nn.Linear(width, classes)\n        self.register_buffer("top", torch.ones(()))'),
        "mixed = tokens",
        (
            "self.top = torch.maximum(self.top, scores.detach().abs().max())\n"
            "        scores = scores / self.top\n"
            "        mixed = tokens"
        ),
    ),
    edit(
        "rules.Trusted",
        "its state moves in eval mode",
        "if self.training:",
        "if True:",
    ),
    edit(
        "rules.Trusted",
        "its state is left out of the state_dict",
        'self.register_buffer("agreed", torch.ones(len(sources)))',
        'self.register_buffer("agreed", torch.ones(len(sources)), persistent=False)',
    ),
    edit(
        "rules.Trusted",
        "half of its state is a plain attribute",
        'self.register_buffer("asked", torch.ones(len(sources)))',
        "self.asked = torch.ones(len(sources))",
    ),
    edit(
        "rules.Trusted",
        "in eval mode its trust is forgotten",
        "trust = (self.agreed / self.asked)",
        ("trust = (self.agreed if self.training else self.asked) / self.asked\n        trust = trust"),
    ),
    edit(
        "rules.Certain",
        "it remembers the mean entropy of the last call",
        "score = (-self.sharpness * entropy)",
        (
            'last = getattr(self, "last", 1.0)\n'
            "        self.last = float(entropy.detach().mean())\n"
            "        score = (-self.sharpness * entropy * last)"
        ),
    ),
    edit(
        "objectives.Centred",
        "the centre is in no state_dict",
        "torch.zeros(target))",
        "torch.zeros(target), persistent=False)",
    ),
    edit(
        "objectives.Remembering",
        "the memory is a plain attribute",
        'self.register_buffer("rows", torch.zeros(len(ids), *target))',
        "self.rows = torch.zeros(len(ids), *target)",
    ),
    edit(
        "signals.Twice",
        "the module is left in eval mode",
        "with torch.no_grad():",
        ("module.eval()\n        with torch.no_grad():"),
    ),
    edit(
        "signals.Salient",
        "the module's weights are left without gradient",
        "top = module(x)",
        ("module.requires_grad_(False)\n        top = module(x)"),
    ),
    edit(
        "metrics.TopK",
        "to compute begins anew",
        "return self.right / self.rows if self.rows else None",
        (
            "share = self.right / self.rows if self.rows else None\n"
            "        self.right = self.rows = 0\n"
            "        return share"
        ),
    ),
    edit(
        "metrics.Brier",
        "to ask for each row counts the rows again",
        ("def each(self, answers):\n        return"),
        ("def each(self, answers):\n        self.update(answers)\n        return"),
    ),
    edit(
        "gates.Usual",
        "its count is a plain attribute",
        'self.register_buffer("count", torch.zeros((), dtype=torch.int64))',
        "self.count = torch.zeros((), dtype=torch.int64)",
    ),
    edit(
        "gates.Seen",
        "who was seen is left out of the state",
        "dtype=torch.bool))",
        "dtype=torch.bool), persistent=False)",
    ),
]
