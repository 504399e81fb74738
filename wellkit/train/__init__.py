"""The thin trainer: a configuration, a loop, checkpoints, and everything that predicts a next state.

from wellkit.train import TrainConfig, train
report = train(TrainConfig.create("turbulent_radiative_layer_2D", data="data", epochs=5), "runs/fno")
"""

from __future__ import annotations

from wellkit.frameworks import require

require("torch", extra="train", purpose="training and scoring models")
require("safetensors", extra="train", purpose="training and scoring models")

from wellkit.schemas.training import TrainConfig, TrainReport  # noqa: E402
from wellkit.train.config import load_config  # noqa: E402
from wellkit.train.loop import train  # noqa: E402
from wellkit.train.pretrained import Pretrained, from_pretrained, load_pretrained  # noqa: E402
from wellkit.train.progress import Progress, ProgressCallback  # noqa: E402
from wellkit.train.run_folder import read_config  # noqa: E402

__all__ = [
    "Pretrained",
    "Progress",
    "ProgressCallback",
    "TrainConfig",
    "TrainReport",
    "from_pretrained",
    "load_config",
    "load_pretrained",
    "read_config",
    "train",
]
