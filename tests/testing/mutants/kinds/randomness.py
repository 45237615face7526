"""Random numbers of generators that no step seeds, or seeds that others depend on."""

from ..mutant import edit

MUTANTS = [
    edit(
        "objectives.Noisy",
        "numpy's generator",
        "torch.randn(target.shape, device=target.device).to(target.dtype)",
        "torch.from_numpy(np.random.normal(size=target.shape)).to(target)",
        first="import numpy as np",
    ),
    edit(
        "objectives.Noisy",
        "Python's generator",
        "torch.randn(target.shape, device=target.device).to(target.dtype)",
        "torch.full_like(target, random.gauss(0, 1))",
        first="import random",
    ),
    edit(
        "objectives.Noisy",
        "a generator that nobody seeds",
        "torch.randn(target.shape, device=target.device).to(target.dtype)",
        "torch.from_numpy(np.random.default_rng().normal(size=target.shape)).to(target)",
        first="import numpy as np",
    ),
    edit(
        "objectives.Noisy",
        "torch is seeded anew in each step",
        "noise = torch",
        ("torch.manual_seed(0)\n        noise = torch"),
    ),
    edit(
        "objectives.Noisy",
        "a generator of its own goes on in no state",
        "self.std = std",
        "self.std, self.draws = std, np.random.default_rng(0)",
        "torch.randn(target.shape, device=target.device).to(target.dtype)",
        "torch.from_numpy(self.draws.normal(size=target.shape)).to(target)",
        first="import numpy as np",
    ),
    edit(
        "objectives.Squares",
        "one sample in ten is left out, by numpy",
        "return batchmean",
        ("student = student * float(np.random.rand() < 0.9)\n        return batchmean"),
        first="import numpy as np",
    ),
    edit(
        "rules.Sampled",
        "numpy's generator",
        "torch.rand(here.shape, device=here.device)",
        "torch.from_numpy(np.random.rand(*here.shape)).to(here.device)",
        first="import numpy as np",
    ),
    edit(
        "rules.Sampled",
        "Python's generator",
        "draws.argmax(0)",
        "draws.argmax(0).roll(random.randrange(draws.shape[1]))",
        first="import random",
    ),
    edit(
        "rules.Sampled",
        "torch is seeded anew in each step",
        "draws = torch",
        ("torch.manual_seed(1234)\n        draws = torch"),
    ),
    edit(
        "rules.Surest",
        "ties are broken by numpy",
        "best = peak.masked_fill(~here, -1.0).argmax(0)",
        "best = (peak + 1e-9 * np.random.rand()).masked_fill(~here, -1.0).argmax(0)",
        first="import numpy as np",
    ),
    edit(
        "signals.Private",
        "numpy's generator",
        "torch.randn(value.shape, device=value.device)",
        "torch.from_numpy(np.random.randn(*value.shape))",
        first="import numpy as np",
    ),
    edit(
        "signals.Private",
        "the time of day",
        "noise = torch",
        ("torch.manual_seed(time.time_ns() % 2**31)\n        noise = torch"),
        first="import time",
    ),
    edit(
        "signals.Seeded",
        "torch's generator in place of the given one",
        ", generator=generator, device=generator.device",
        "",
    ),
    edit(
        "views.Brighter",
        "torch's default generator",
        "drawn(self.seed, ids, draw, 1)",
        "torch.rand(len(x), 1)",
    ),
    edit(
        "views.Brighter",
        "numpy's generator, seeded in each call",
        "factor = 1 + self.spread * (2 * drawn(self.seed, ids, draw, 1) - 1)",
        (
            "np.random.seed(self.seed + draw)\n"
            "        factor = 1 + self.spread * torch.from_numpy(np.random.rand(len(x), 1))"
        ),
        first="import numpy as np",
    ),
    edit(
        "views.Rolled",
        "the same in every epoch",
        "drawn(self.seed, ids, draw, 1)",
        "drawn(self.seed, ids, 0, 1)",
    ),
    edit(
        "views.Erased",
        "the same for every sample",
        "drawn(self.seed, ids, draw, flat.shape[1])",
        "drawn(self.seed, 0 * ids, draw, flat.shape[1])",
    ),
    edit(
        "datasets.clouds",
        "numpy's generator",
        "np.random.default_rng(seed)",
        "np.random",
    ),
    edit(
        "datasets.clouds",
        "numpy's generator is seeded for all",
        "noise = np.random.default_rng(seed)",
        ("np.random.seed(seed)\n    noise = np.random"),
    ),
    edit(
        "datasets.clouds",
        "a generator that nobody seeds",
        "np.random.default_rng(seed)",
        "np.random.default_rng()",
    ),
    edit(
        "models.Residual",
        "weights begin as numpy says",
        "self.head = nn.Linear(width, classes)",
        (
            "self.head = nn.Linear(width, classes)\n"
            "        self.head.weight.data = torch.from_numpy(np.random.randn(classes, "
            "width)).float()"
        ),
        first="import numpy as np",
    ),
    edit(
        "models.Residual",
        "torch is seeded as it is built",
        "self.stem = nn",
        ("torch.manual_seed(0)\n        self.stem = nn"),
    ),
    edit(
        "models.Dropped",
        "dropout by Python's generator",
        "F.dropout(hidden, self.rate, self.training)",
        "hidden * float(not self.training or random.random() > self.rate)",
        first="import random",
    ),
    edit(
        "metrics.TopK",
        "ties are broken by numpy",
        "answers.p.topk",
        "(answers.p + 1e-12 * np.random.rand()).topk",
        first="import numpy as np",
    ),
    edit(
        "gates.Lucky",
        "Python's generator",
        "(torch.rand(losses.shape, device=losses.device) < self.share)",
        "losses.new_tensor([random.random() < self.share for _ in losses])",
        first="import random",
    ),
    edit(
        "gates.Lucky",
        "torch is seeded anew in each step",
        "return (torch",
        ("torch.manual_seed(3)\n        return (torch"),
    ),
    edit(
        "samplers.Drawn",
        "Python's default generator",
        "Random(self.seed), set()",
        "random, set()",
        first="import random",
    ),
    edit(
        "strategies.Ring",
        "agents are shuffled",
        'canvas.learners(self.agents, "agents")',
        ('canvas.learners(self.agents, "agents")\n        random.shuffle(names)'),
        first="import random",
    ),
]
