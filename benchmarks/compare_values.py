"""Values of wellkit's datasets against the_well 1.2's, on the same files, for every option both have.

    python benchmarks/compare_values.py --peer-python /path/to/peer/bin/python

The peer lives in an environment of its own: `python -m venv peer && peer/bin/pip install torch the-well==1.2.0`.
Exit status 1 if any value, shape, dtype, key or metadata entry differs beyond float32 rounding.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import wellkit
from wellkit.formats.well_writer import ShardBoundary, write_well_shard

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.trees import make_shard, make_tree  # noqa: E402

TOLERANCE = 2e-6  # float32 rounding of (x - mean) / std in another order of operations


def trees(folder: Path) -> dict[str, Path]:
    """One tree for each feature of the format that both read."""
    return {
        "1D": make_tree(folder / "f", name="made_up", resolution=(9,), singleton_axes=True),
        "boundary masks over two axes": masked_tree(folder / "g"),
        "2D": make_tree(folder / "a", name="made_up", singleton_axes=True),
        "2D gzip": make_tree(folder / "b", name="made_up", singleton_axes=True, chunks=True, compression="gzip"),
        "3D": make_tree(folder / "c", name="made_up", resolution=(4, 5, 6), singleton_axes=True),
        "time and grid vary by trajectory": make_tree(
            folder / "d",
            name="made_up",
            singleton_axes=True,
            time_per_trajectory=True,
            grid_per_trajectory=True,
        ),
        "plain": make_tree(folder / "e", name="made_up", plain=True, files=3, boundaries=("OPEN", "OPEN")),
    }


def masked_tree(folder: Path) -> Path:
    """Sides that are wholly wall, wholly or partly open, with their axes in either order."""
    tree = make_tree(folder, name="made_up", singleton_axes=True)
    partly, around = np.zeros((8, 6), dtype=bool), np.zeros((8, 6), dtype=bool)
    partly[-1, 2:4] = True
    around[:, [0, -1]] = around[0, :4] = True
    masks = (
        ShardBoundary("outlet", "OPEN", ("x", "y"), partly),
        ShardBoundary("walls", "WALL", ("y", "x"), around.T.copy()),
        ShardBoundary("x_periodic", "PERIODIC", ("x",), np.arange(8) == 0),
    )
    for number, path in enumerate(sorted(tree.glob("data/*/*.hdf5"))):
        shard = make_shard(singleton_axes=True, seed=number)
        write_well_shard(path, replace(shard, boundaries=masks))
    return tree


def cases(tree: Path) -> dict[str, dict[str, Any]]:
    """Requests by name: every option both have, alone and in the combinations training code uses."""
    base = {"path": str(tree), "well_split_name": "train"}
    found: dict[str, dict[str, Any]] = {}

    def add(
        name: str,
        dataset: str = "WellDataset",
        normalization: str | None = None,
        transform: list[Any] | None = None,
        loader: str | None = None,
        **arguments: Any,
    ) -> None:
        if normalization:
            arguments["use_normalization"] = True
        found[name] = {
            "dataset": dataset,
            "normalization": normalization,
            "transform": transform,
            "loader": loader,
            "arguments": base | arguments,
        }

    add("defaults")
    for kind, inputs, stride in itertools.product((None, "zscore", "rms"), (1, 3), (1, 2)):
        add(
            f"{kind} {inputs}+1 stride {stride}",
            normalization=kind,
            n_steps_input=inputs,
            min_dt_stride=stride,
            max_dt_stride=stride,
        )
    for kind in (None, "zscore", "rms"):
        add(f"delta {kind}", "DeltaWellDataset", kind, n_steps_input=2, n_steps_output=2)
        add(f"full trajectory {kind}", normalization=kind, n_steps_input=2, full_trajectory_mode=True)
    add("full trajectory from frame 5", n_steps_input=2, full_trajectory_mode=True, start_output_steps_at_t=5)
    add("full trajectory stride 2", full_trajectory_mode=True, min_dt_stride=2, max_dt_stride=2)
    add("rollout cut", n_steps_input=2, full_trajectory_mode=True, max_rollout_steps=3)
    add("output cut", n_steps_output=4, max_rollout_steps=2)
    add("valid split", well_split_name="valid", n_steps_output=2)
    add("absolute time", normalize_time_grid=False)
    add("no grid", return_grid=False)
    add("no boundaries", boundary_return_type=None)
    add("nothing kept", cache_small=False)
    add("include", include_filters=["part_1"])
    add("exclude", exclude_filters=["part_1"])
    add("restricted samples", restrict_num_samples=5, restriction_seed=3)
    add("restricted share", restrict_num_samples=0.5)
    add("renamed", name_override="other")
    add("statistics elsewhere", normalization="zscore", normalization_path=str(tree / "stats.yaml"))
    base_path: dict[str, Any] = {"well_base_path": str(tree.parent), "well_dataset_name": "dummy"}
    if not (tree.parent / "dummy").exists():
        (tree.parent / "dummy").symlink_to(tree)  # the_well takes no other name that is not one of its own
    add("base path", normalization="zscore", **base_path)
    found["base path"]["arguments"].pop("path")
    for loader in ("test", "rollout_test"):  # those that the_well neither shuffles nor normalizes
        add(f"loader {loader}", loader=loader)
        found[f"loader {loader}"]["arguments"] = base_path | {"batch_size": 2, "data_workers": 0, "n_steps_input": 2}
    for name, transform in transforms(len(resolution(tree))).items():
        add(name, transform=transform, n_steps_output=2, return_grid=transform[0] in ("RandomAxisRoll", "Resize"))
    return found


def resolution(tree: Path) -> tuple[int, ...]:
    """Grid points along each axis."""
    return wellkit.WellDataset(path=tree, well_split_name="train").metadata.spatial_resolution


def transforms(n_dims: int) -> dict[str, list[Any]]:
    """Transforms without chance, as `peer_samples.transform` takes them.

    The coordinates of flips, permutations and rotations differ on purpose and are left out.
    """
    found: dict[str, list[Any]] = {
        "roll": ["RandomAxisRoll", "roll", {str(axis): axis + 2 for axis in range(n_dims)}],
        "resize": ["Resize", None, {"target_size": [5, 7, 4][:n_dims], "interpolation_mode": "nearest"}],
    }
    for mask in itertools.product((False, True), repeat=n_dims):
        found[f"flip {mask}"] = ["RandomAxisFlip", "flip", list(mask)]
    for order in itertools.permutations(range(n_dims)):
        found[f"permute {order}"] = ["RandomAxisPermute", "permute", list(order)]
    for index in range({1: 0, 2: 4, 3: 24}[n_dims]):  # the_well cannot rotate in one dimension
        found[f"rotation {index}"] = ["RandomRotation90", None, {"hardcoded_rotation_index": index}]
    return found


def our_transform(given: list[Any]) -> Callable[[Any, Any], Any]:
    """The same transform of wellkit."""
    kind, function, arguments = getattr(wellkit.augmentation, given[0]), given[1], given[2]
    if function is None:
        made: Callable[[Any, Any], Any] = kind(**arguments)
        return made
    argument = {int(k): v for k, v in arguments.items()} if isinstance(arguments, dict) else arguments
    return lambda data, metadata: getattr(kind, function)(data, argument)


def ours(request: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """The same dataset and its samples (or batches) by wellkit, with the_well's defaults where wellkit's differ."""
    arguments = dict(request["arguments"])
    arguments.setdefault("max_rollout_steps", 100)
    if request["normalization"]:
        arguments["normalization_type"] = {
            "zscore": wellkit.ZScoreNormalization,
            "rms": wellkit.RMSNormalization,
        }[request["normalization"]]
    if request["transform"]:
        arguments["transform"] = our_transform(request["transform"])
    if request["loader"]:
        loader = getattr(wellkit.WellDataModule(**arguments), f"{request['loader']}_dataloader")()
        return loader.dataset, list(loader)
    dataset = getattr(wellkit, request["dataset"])(**arguments)
    return dataset, [dataset[index] for index in range(len(dataset))]


def compare(case: str, request: dict[str, Any], peer: dict[str, np.ndarray]) -> tuple[int, float, list[str]]:
    """(arrays compared, largest difference relative to each array's largest value, complaints)."""
    dataset, samples = ours(request)
    complaints = []
    metadata = json.loads(str(peer[f"{case}|metadata"]))
    for key, value in metadata.items():
        found = json.loads(json.dumps(getattr(dataset.metadata, key)))
        if found != value:
            complaints.append(f"metadata.{key}: {found} != {value}")
    if len(samples) != int(peer[f"{case}|len"]):
        return 0, 0.0, [*complaints, f"len: {len(samples)} != {int(peer[f'{case}|len'])}"]
    compared, worst = 0, 0.0
    for index, made in enumerate(samples):
        sample = {key: value.numpy() for key, value in made.items()}
        theirs = {key.split("|")[2]: value for key, value in peer.items() if key.startswith(f"{case}|{index}|")}
        if list(sample) != list(theirs):
            complaints.append(f"keys of sample {index}: {list(sample)} != {list(theirs)}")
            continue
        for key, value in sample.items():
            other = theirs[key]
            if value.shape != other.shape or value.dtype != other.dtype:
                complaints.append(f"{key} of sample {index}: {value.dtype}{value.shape} != {other.dtype}{other.shape}")
                continue
            difference = float(np.max(np.abs(value - other)) / max(float(np.max(np.abs(other))), 1e-30))
            compared, worst = compared + 1, max(worst, difference)
            if difference > TOLERANCE:
                complaints.append(f"{key} of sample {index}: differs by {difference:.1e}")
    return compared, worst, complaints


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="python of an environment with the-well==1.2.0")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    failed = 0
    total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, tree in trees(folder).items():
            requests = cases(tree)
            (folder / "request.json").write_text(json.dumps(requests))
            subprocess.run(
                [
                    arguments.peer_python,
                    str(ROOT / "benchmarks" / "peer_samples.py"),
                    str(folder / "request.json"),
                    str(folder / "peer.npz"),
                ],
                check=True,
            )
            with np.load(folder / "peer.npz") as archive:
                peer = dict(archive)
            for case, request in requests.items():
                compared, worst, complaints = compare(case, request, peer)
                total += compared
                failed += bool(complaints)
                state = "DIFFERS" if complaints else "equal"
                print(f"{state:8} {label}: {case}: {compared} arrays, largest relative difference {worst:.1e}")
                for complaint in complaints[:4]:
                    print(f"         {complaint}")
    print(f"{total} arrays compared, {failed} cases differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
