"""What cannot be sent to another process or copied, or is another thing there."""

from ..mutant import edit

MUTANTS = [
    edit(
        "objectives.Softened",
        "its scale is a lambda",
        "self.temperature = temperature",
        ("self.temperature = temperature\n        self.scale = lambda loss: loss * temperature**2"),
        "return self.temperature**2 * batchmean(elements, weights)",
        "return self.scale(batchmean(elements, weights))",
    ),
    edit(
        "objectives.Noisy",
        "it holds a lock",
        "self.std = std",
        "self.std, self.lock = std, threading.Lock()",
        first="import threading",
    ),
    edit(
        "objectives.Cosine",
        "it holds a module of Python",
        "super().__init__()",
        ("super().__init__()\n        self.functional = F"),
    ),
    edit(
        "objectives.Decoupled",
        "a copy forgets its settings",
        "def both(self",
        ("def __reduce__(self):\n        return (Decoupled, ())\n\n    def both(self"),
    ),
    edit(
        "objectives.Adapted",
        "a part is of a class made in setup",
        "self.second = nn.Conv2d(target[0], target[0], 1)",
        ("class Second(nn.Conv2d):\n            pass\n\n        self.second = Second(target[0], target[0], 1)"),
    ),
    edit(
        "rules.Certain",
        "its score is a lambda",
        "self.sharpness = sharpness",
        ("self.sharpness = sharpness\n        self.score = lambda entropy: -sharpness * entropy"),
        "score = (-self.sharpness * entropy)",
        "score = self.score(entropy)",
    ),
    edit(
        "rules.Learned",
        "its weights are tied by a hook that is a lambda",
        "self.slope = nn.Parameter(torch.ones(()))",
        (
            "self.slope = nn.Parameter(torch.ones(()))\n"
            "        self.register_forward_hook(lambda module, given, out: out)"
        ),
    ),
    edit(
        "rules.Preferred",
        "its names are a generator",
        "self.names = sources",
        ("self.names = sources\n        self.others = (name for name in sources)"),
    ),
    edit(
        "rules.Trusted",
        "a copy begins without what it learned",
        "def weights(",
        (
            "def __getstate__(self):\n"
            '        state = {**self.__dict__, "_buffers": {n: torch.ones_like(b) for n, b in '
            "self._buffers.items()}}\n"
            "        return state\n"
            "\n"
            "    def weights("
        ),
    ),
    edit(
        "signals.Flattened",
        "it is a closure",
        "self.temperature = temperature",
        ("self.temperature = temperature\n        self.make = lambda value: (value / temperature).softmax(-1)"),
        "return (value / self.temperature).softmax(-1)",
        "return self.make(value)",
    ),
    edit(
        "signals.Top",
        "it holds an open file",
        "self.k = k",
        "self.k, self.log = k, open(os.devnull)",
        first="import os",
    ),
    edit(
        "views.Brighter",
        "its draw is a lambda",
        "self.seed, self.spread = seed, spread",
        ("self.seed, self.spread = seed, spread\n        self.drawn = lambda ids, draw: drawn(seed, ids, draw, 1)"),
        "drawn(self.seed, ids, draw, 1)",
        "self.drawn(ids, draw)",
    ),
    edit(
        "views.Erased",
        "a copy has another seed",
        "def __call__(self, x",
        ("def __reduce__(self):\n        return (Erased, (0, self.share))\n\n    def __call__(self, x"),
    ),
    edit(
        "metrics.TopK",
        "its counts are of a local class",
        "self.k, self.right, self.rows = k, 0, 0",
        ("class Count(int):\n            pass\n\n        self.k, self.right, self.rows = k, Count(0), Count(0)"),
    ),
    edit(
        "metrics.Spread",
        "its sums are an iterator",
        "self.count, self.sum, self.squares = 0, 0.0, 0.0",
        ("self.count, self.sum, self.squares = 0, 0.0, 0.0\n        self.parts = (part for part in ())"),
    ),
    edit(
        "gates.Sure",
        "its test is a lambda",
        "self.least = least",
        ("self.least = least\n        self.test = lambda value: value >= least"),
        "(confidence >= self.least)",
        "self.test(confidence)",
    ),
    edit(
        "gates.Lucky",
        "it holds a lock",
        "self.share = share",
        "self.share, self.lock = share, threading.RLock()",
        first="import threading",
    ),
    edit(
        "models.Dropped",
        "its activation is a lambda",
        "self.rate = rate",
        "self.rate, self.act = rate, lambda value: value.relu()",
        "self.hidden(x.flatten(1)).relu()",
        "self.act(self.hidden(x.flatten(1)))",
    ),
    edit(
        "models.Patches",
        "a hook that is a closure",
        "self.head = nn.Linear(width, classes)",
        (
            "self.head = nn.Linear(width, classes)\n"
            "        self.head.register_forward_hook(lambda module, given, out: out * 1.0)"
        ),
    ),
    edit(
        "tasks.Classes",
        "what it asks is a lambda",
        "self.least = least",
        ("self.least = least\n        self.enough = lambda count: count >= least"),
    ),
    edit(
        "tasks.Classes",
        "it holds a lock",
        "self.least = least",
        "self.least, self.lock = least, threading.Lock()",
        first="import threading",
    ),
    edit(
        "tasks.Classes",
        "it holds the module torch",
        "self.least = least",
        ("import torch\n\n        self.least, self.torch = least, torch"),
    ),
]
