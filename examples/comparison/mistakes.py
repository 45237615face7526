"""Make three mistakes in a plugin of each system, and print what its author and its user are told.

    python examples/comparison/mistakes.py            of those that are installed

A hook whose name is misspelt, a hook with an argument that there is not, and a hook that raises. The systems are run as
a user runs them; what they print is cut to its last lines.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

MESH = """
import kdmesh, torch
x = torch.randn(96, 8)
data = kdmesh.data(*((x[rows], x[rows].argmax(1) % 3) for rows in torch.arange(96).split([48, 24, 24])), classes=3)
mesh = kdmesh.Mesh(data=data, train={"epochs": 1})
mesh.agent("a", "mlp")
mesh.run(backend="inline", out="runs")
"""
LIGHTNING = """
import sys, torch
sys.path.insert(0, FOLDER)
from test_lightning_lines import Model, DataLoader, TensorDataset, Trainer
from lightning.pytorch import Callback
from mistaken import Mistaken
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
Trainer(max_epochs=1, callbacks=[Mistaken()], enable_model_summary=False, **quiet).fit(
    Model(), DataLoader(TensorDataset(torch.randn(4, 2))))
"""
OPTUNA = """
import optuna
from mistaken import mistaken
optuna.create_study().optimize(lambda trial: 1.0, n_trials=2, callbacks=[mistaken])
"""
LLM = """
import mistaken
from llm.plugins import load_plugins, pm
load_plugins()
pm.register(mistaken)
from llm.cli import cli
pm.hook.register_commands(cli=cli)
cli(["plugins", "--help"])
"""
HERE = Path(__file__).parent
SYSTEMS = {  # module that must be there: the plugin with one line of its own, the run, and the three such lines
    "kdmesh": (
        "import kdmesh\n\n@kdmesh.hookimpl\ndef {}:\n    {}\n",
        MESH,
        ("kdmesh_traind(losses)", "kdmesh_trained(lossess)", "kdmesh_trained(losses)"),
    ),
    "pytest": (
        "def {}:\n    {}\n",
        None,
        ("pytest_runtest_logreprot(report)", "pytest_runtest_logreport(reprot)", "pytest_runtest_logreport(report)"),
    ),
    "llm": (
        "import llm\n\n@llm.hookimpl\ndef {}:\n    {}\n",
        LLM,
        ("register_comands(cli)", "register_commands(cil)", "register_commands(cli)"),
    ),
    "optuna": ("def {}:\n    {}\n", OPTUNA, ("", "mistaken(study)", "mistaken(study, trial)")),
    "lightning": (
        "from lightning.pytorch import Callback\n\nclass Mistaken(Callback):\n    def {}:\n        {}\n",
        LIGHTNING.replace("FOLDER", repr(str(HERE / "lightning"))),
        ("on_train_epoch_ended(self, trainer, pl_module)", "on_train_epoch_end(self, trainr)",
         "on_train_epoch_end(self, trainer, pl_module)"),
    ),
}  # fmt: skip


def tried(system: str, which: int) -> str:
    """What a run with one of the mistakes says at its end, and its exit code."""
    form, run, heads = SYSTEMS[system]
    if not heads[which]:
        return "there are no names of hooks"
    with tempfile.TemporaryDirectory() as folder:
        path, plugins = Path(folder), Path(folder) / "plugins"
        plugins.mkdir()
        (plugins / "mistaken.py").write_text(form.format(heads[which], "1 / 0" if which == 2 else "pass"))
        (path / "test_it.py").write_text("def test_one(): pass\n")
        (path / "run.py").write_text(run or "")
        command = (
            ["run.py"] if run else ["-m", "pytest", "-q", "-p", "mistaken", "-p", "no:cacheprovider", "test_it.py"]
        )
        own = {"PYTHONPATH": os.pathsep.join(filter(None, (str(plugins), os.environ.get("PYTHONPATH"))))}
        own |= {"KDMESH_PLUGINS_DIR": str(plugins), "KDMESH_PLUGINS": "mistaken", "LLM_USER_PATH": folder}
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=os.environ | own, capture_output=True, text=True
        )
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        return f"exit code {done.returncode}\n      " + "\n      ".join(line[:200] for line in said[-4:])


def main() -> None:
    """Try everything that is installed."""
    for system in SYSTEMS:
        spec = find_spec(system)
        if spec is None or spec.origin is None:  # a folder of this name, beside this file, is none
            print(f"{system}: not installed")
            continue
        for number, mistake in enumerate(("a misspelt name", "an argument that there is not", "it raises")):
            print(f"{system}, {mistake}: {tried(system, number)}")


if __name__ == "__main__":
    main()
