"""Write the metrics of each epoch as a line of JSON."""

import json
from pathlib import Path

from lightning.pytorch import Callback


class Lines(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        with open(Path(trainer.default_root_dir) / "lines.jsonl", "a") as file:
            file.write(json.dumps({"epoch": trainer.current_epoch, **metrics}) + "\n")


def callbacks():
    return [Lines()]
