"""Steps of wellkit's training against the same model in a bare loop on tensors that are already on the device.

    python benchmarks/bench_train.py [--device cuda --resolution 128x384 --batch-size 16 --workers 4 --full] [--json F]

Both do the same work a step: model, mean squared error, gradient, AdamW. wellkit's also reads its windows from local
shards, normalizes them, looks at every number and keeps the accounts. They take turns, an epoch's steps each, in one
process; figures are medians over the turns, ratios medians of the ratios within a turn. The default is small enough for
a processor; the models are then narrow ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from wellkit.formats.well_writer import ShardAxis, ShardField, WellShard, edge_boundary, write_well_shard
from wellkit.train import Progress, TrainConfig, train
from wellkit.train.data import choose_device
from wellkit.train.models import build_model

NAME = "noise"
STEPS_INPUT, CHANNELS, FRAMES = 4, 4, 36  # 32 windows a trajectory
NARROW: dict[str, dict[str, Any]] = {
    "fno": {"modes1": 8, "modes2": 8, "hidden_channels": 16, "lifting_channels": 32, "projection_channels": 32},
    "unet_convnext": {"init_features": 8, "stages": 3},
}


def make_data(base: Path, resolution: tuple[int, ...], trajectories: int) -> None:
    """Noise of mean 0 and deviation 1 as a dataset; what is in it costs no model more or less."""
    axes = tuple(ShardAxis("xy"[d], np.arange(size) / size) for d, size in enumerate(resolution))
    for number, (split, count) in enumerate((("train", trajectories), ("valid", 1))):
        rng = np.random.default_rng(number)
        fields = tuple(
            ShardField(f"f{channel}", rng.standard_normal((count, FRAMES, *resolution), dtype=np.float32))
            for channel in range(CHANNELS)
        )
        shard = WellShard(
            dataset_name=NAME,
            n_trajectories=count,
            time=ShardAxis("time", np.arange(float(FRAMES))),
            axes=axes,
            fields=fields,
            boundaries=tuple(edge_boundary(f"{a.name}_periodic", "PERIODIC", a) for a in axes),
        )
        write_well_shard(base / NAME / "data" / split / f"{NAME}_0.hdf5", shard)
    table = {
        kind + delta: {f"f{channel}": float(kind != "mean") for channel in range(CHANNELS)}
        for kind in ("mean", "std", "rms")
        for delta in ("", "_delta")
    }
    (base / NAME / "stats.yaml").write_text(yaml.safe_dump(table))


class Bare:
    """The same model and optimizer, and one batch that is there already."""

    def __init__(self, config: TrainConfig, resolution: tuple[int, ...], device: torch.device) -> None:
        self.device, self.precision = device, config.precision
        inputs = STEPS_INPUT * CHANNELS
        self.model = build_model(
            config.model, config.model_arguments, dim_in=inputs, dim_out=CHANNELS, spatial_resolution=resolution, seed=0
        ).to(device)
        if config.compile:
            self.model.compile()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate)
        self.inputs = torch.randn(config.batch_size, inputs, *resolution, device=device)
        self.outputs = torch.randn(config.batch_size, CHANNELS, *resolution, device=device)

    def seconds(self, steps: int) -> float:
        """Of so many steps."""
        self.wait()
        began = time.perf_counter()
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                answer = self.model(self.inputs)
            (answer.float() - self.outputs).square().mean().backward()
            self.optimizer.step()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        """For the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure(config: TrainConfig, resolution: tuple[int, ...], folder: Path) -> dict[str, float]:
    """Milliseconds a step of both, their ratio, and the share of wellkit's that waits for data."""
    bare = Bare(config, resolution, choose_device(config.device))
    turns: list[tuple[float, float, float]] = []
    steps = 0

    def told(progress: Progress) -> None:
        nonlocal steps
        if progress.phase == "train":
            steps = progress.done
        elif progress.phase == "epoch":
            turns.append(
                (steps * config.batch_size / progress.samples_per_second, bare.seconds(steps), progress.stall_share)
            )

    train(config, folder, progress=told)
    counted = turns[1:]  # the first one warms up
    return {
        "wellkit_ms": 1e3 * statistics.median(ours for ours, _, _ in counted) / steps,
        "bare_ms": 1e3 * statistics.median(bare for _, bare, _ in counted) / steps,
        "ratio": statistics.median(ours / bare for ours, bare, _ in counted),
        "stall_share": statistics.median(stall for _, _, stall in counted),
        "turns": len(counted),
        "steps": steps,
    }


def main() -> None:
    """Measure both models and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolution", default="64x64")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--trajectories", type=int, default=2, help="of 32 windows each")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--precision", default="float32", choices=("float32", "tf32", "bf16"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--full", action="store_true", help="models as wide as the benchmark's")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    resolution = tuple(int(size) for size in given.resolution.split("x"))
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        make_data(base, resolution, given.trajectories)
        for model in NARROW:
            config = TrainConfig.create(
                NAME,
                data=base,
                model=model,
                model_arguments={} if given.full else NARROW[model],
                epochs=given.epochs,
                batch_size=given.batch_size,
                device=given.device,
                workers=given.workers,
                precision=given.precision,
                compile=given.compile,
                checkpoint_every=0,
            )
            figures[model] = found = measure(config, resolution, base / model)
            print(
                f"{model}: {found['wellkit_ms']:.2f} ms a step, bare {found['bare_ms']:.2f} ms, "
                f"ratio {found['ratio']:.3f}, waiting for data {found['stall_share']:.1%} "
                f"({found['turns']} turns of {found['steps']} steps)"
            )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
