import json

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning_lines import callbacks
from torch.utils.data import DataLoader, TensorDataset


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lines(tmp_path):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=2, default_root_dir=tmp_path, callbacks=callbacks(), **quiet)
    trainer.fit(Model(), DataLoader(TensorDataset(torch.randn(4, 2))))
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1] and all("loss" in line for line in lines)
