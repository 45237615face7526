"""Training without torch's compiler, which is there once something compiles: in a process that has not imported it."""

from __future__ import annotations

import subprocess
import sys

PROBE = """
import sys
import torch
from kdmesh.cli import main
from kdmesh.hosts.compiler import MARK, StandIn, spare_compiler

run = ["run", "deep-mutual", "--backend", "inline", "--quiet", "--out", sys.argv[1]]
assert main([*run, "--set", "train.epochs=1", "--set", "data.train=64"]) == 0
assert isinstance(sys.modules["torch._dynamo"], StandIn) and "torch._inductor" not in sys.modules
torch.manual_seed(0)
x, y, kinds = torch.randn(8, 3), torch.arange(8) % 2, (torch.optim.SGD, torch.optim.AdamW, torch.optim.Adadelta)


def trained(kind):
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    optimizer = kind(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    return net


before = [trained(kind) for kind in kinds]
before[0].to("meta")(x.to("meta"))
assert isinstance(sys.modules["torch._dynamo"], StandIn) and "torch._inductor" not in sys.modules
assert not hasattr(torch._dynamo, "__no_such__") and isinstance(sys.modules["torch._dynamo"], StandIn)
told = torch.optim.Optimizer.zero_grad.__wrapped__
assert getattr(told, MARK) is told
before = [trained(kind) for kind in kinds]

torch.testing.assert_close(torch.compile(before[0], backend="eager")(x), before[0](x))
compiler = sys.modules["torch._dynamo"]
assert torch._dynamo is compiler and not isinstance(compiler, StandIn)
assert getattr(told, MARK) is not told and getattr(told, MARK)._torchdynamo_disable
after = [trained(kind) for kind in kinds]
for one, other in zip(before, after):
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))
spare_compiler()
assert sys.modules["torch._dynamo"] is compiler
"""


def test_the_compiler_is_imported_by_what_compiles_and_knows_what_it_may_not(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROBE, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
