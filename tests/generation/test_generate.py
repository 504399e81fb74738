"""Generated trees: layout, provenance, repeatability, and runs that do not end well."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

import wellkit
from wellkit.catalog.files import read_card
from wellkit.errors import ArgumentError, DataValueError, StorageError, UnknownDatasetError
from wellkit.generation import registry
from wellkit.generation.cooling import CoolingCurve, CoolingGas2D
from wellkit.generation.generate import GenerationReport, generate
from wellkit.generation.radiative_layer import COOLING_TIMES, inflow_velocity, initial_state

LAYER = "turbulent_radiative_layer_2D"
GRAY_SCOTT = "gray_scott_reaction_diffusion"


def small(to: Path, name: str = LAYER, **options: Any) -> GenerationReport:
    chosen: dict[str, Any] = {"resolution": (8, 24), "trajectories": 5, "steps": 3, "jobs": 1, "seed": 4}
    if name == GRAY_SCOTT:
        chosen["resolution"] = (8, 16)
    return generate(name, to, **{**chosen, **options})


def contents(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Every array of every shard."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted(folder.rglob("*.hdf5")):
        arrays: dict[str, np.ndarray] = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None  # noqa: B023
            )
        found[str(path.relative_to(folder))] = arrays
    return found


def assert_equal(first: dict[str, dict[str, np.ndarray]], second: dict[str, dict[str, np.ndarray]]) -> None:
    assert first.keys() == second.keys()
    for path, arrays in first.items():
        assert arrays.keys() == second[path].keys()
        for name, values in arrays.items():
            assert values.tobytes() == second[path][name].tobytes(), (path, name)


def test_the_tree_of_a_radiative_layer(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    report = small(tmp_path, trajectories=20, progress=lambda *counts: done.append(counts))
    folder = tmp_path / LAYER
    assert report.path == folder
    assert report.trajectories == {"train": 16, "valid": 2, "test": 2}
    assert report.files == {"train": 9, "valid": 2, "test": 2}
    assert done == [(number, 20) for number in range(21)]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [LAYER]
    assert sorted(entry.name for entry in folder.iterdir()) == [".wellkit", "card.yaml", "data", "stats.yaml"]
    assert report.bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    names = sorted(path.name for path in (folder / "data" / "train").iterdir())
    assert names == sorted(f"turbulent_radiative_layer_tcool_{value:.2f}.hdf5" for value in COOLING_TIMES)

    total, seen = 0, []
    for path in folder.rglob("*.hdf5"):
        with h5py.File(path) as file:
            t_cool = file.attrs["tcool"]
            count = int(file.attrs["n_trajectories"])
            total += count
            assert path.name == f"turbulent_radiative_layer_tcool_{t_cool:.2f}.hdf5"
            assert file.attrs["dataset_name"] == LAYER
            assert list(file.attrs["simulation_parameters"]) == ["tcool"]
            assert file["scalars/tcool"][()] == np.float32(t_cool)
            # Nobody can take it for the original.
            assert file.attrs["generator"] == f"wellkit.generation:{LAYER}"
            assert file.attrs["generator_version"] == registry.get(LAYER).version
            assert file.attrs["generator_seed"] == 4
            assert file.attrs["wellkit_version"] == wellkit.__version__
            members = file.attrs["generator_trajectories"].tolist()
            assert len(members) == count
            seen += [(int(file.attrs["generator_setting"]), member) for member in members]
            # The original's domain and cadence.
            np.testing.assert_allclose(file["dimensions/time"], [0.0, 1.597033, 3.194066], rtol=1e-7)
            np.testing.assert_allclose(file["dimensions/x"], -0.5 + (np.arange(8) + 0.5) / 8, atol=1e-7)
            np.testing.assert_allclose(file["dimensions/y"], -1 + 3 * (np.arange(24) + 0.5) / 24, atol=1e-6)
            assert file["boundary_conditions/x_periodic"].attrs["bc_type"] == "PERIODIC"
            assert file["boundary_conditions/y_open"].attrs["bc_type"] == "OPEN"
            assert list(file["t0_fields"].attrs["field_names"]) == ["density", "pressure"]
            assert file["t0_fields/density"].shape == (count, 3, 8, 24)
            assert file["t1_fields/velocity"].shape == (count, 3, 8, 24, 2)
            # Hot over cold in pressure equilibrium, at the start.
            np.testing.assert_allclose(file["t0_fields/pressure"][:, 0], 1.0, rtol=1e-6)
            np.testing.assert_allclose(file["t0_fields/density"][:, 0, :, 0], 100.0, rtol=1e-6)
            np.testing.assert_allclose(file["t0_fields/density"][:, 0, :, -1], 1.0, rtol=1e-6)
            assert np.ptp(file["t0_fields/pressure"][:, -1]) > 1e-4  # and something happens
    assert total == 20
    assert len(set(seen)) == 20  # no trajectory twice, in whatever split


def test_statistics_are_those_of_the_training_split(tmp_path: Path) -> None:
    small(tmp_path, trajectories=12)
    folder = tmp_path / LAYER
    statistics = yaml.safe_load((folder / "stats.yaml").read_text())
    assert list(statistics) == ["mean", "std", "rms", "mean_delta", "std_delta", "rms_delta"]
    train = [arrays for path, arrays in contents(folder).items() if "/train/" in path]
    for name, place in (("density", "t0_fields/density"), ("velocity", "t1_fields/velocity")):
        values = np.concatenate([arrays[place] for arrays in train]).astype(np.float64)
        axes = (0, 1, 2, 3)
        delta = np.diff(values, axis=1)
        np.testing.assert_allclose(statistics["mean"][name], values.mean(axes), rtol=1e-6)
        np.testing.assert_allclose(statistics["std"][name], values.std(axes), rtol=1e-6)
        np.testing.assert_allclose(statistics["rms_delta"][name], np.sqrt((delta**2).mean(axes)), rtol=1e-6)


def test_the_card_says_what_was_simulated(tmp_path: Path) -> None:
    small(tmp_path, parameters={"tcool": [0.1, 0.25]}, seed=11)
    card = read_card(tmp_path / LAYER / "card.yaml")
    assert card.name == LAYER
    assert card.collection == "generated"
    assert card.generator is not None
    assert (card.generator.name, card.generator.seed) == (f"wellkit.generation:{LAYER}", 11)
    assert card.resolution == (8, 24)
    assert [axis.extent for axis in card.grid.axes] == [(-0.5, 0.5), (-1.0, 2.0)]
    assert (card.time.steps, card.time.spacing) == ((3,), 1.597033)
    assert {name: part.trajectories for name, part in card.splits.items()} == {"train": 3, "valid": 1, "test": 1}
    values = {parameter.name: parameter.values for parameter in card.parameters}
    assert values["tcool"] == (0.1, 0.25)
    assert values["density_contrast"] == (100.0,)
    assert values["shear_velocity"] == (0.06,)
    assert any("S(T)" in equation.latex for equation in card.equations)
    names = {path.name for path in (tmp_path / LAYER).rglob("*.hdf5")}
    assert names == {f"turbulent_radiative_layer_tcool_{value}.hdf5" for value in ("0.10", "0.25")}
    # `wellkit.WellDataset` and the catalog take it for what it says it is.
    data = wellkit.WellDataset(
        well_base_path=str(tmp_path), well_dataset_name=LAYER, well_split_name="valid", use_normalization=True,
        n_steps_input=1, n_steps_output=1, framework="numpy",
    )  # fmt: skip
    assert data[0]["input_fields"].shape == (1, 8, 24, 4)


def test_the_tree_of_gray_scott(tmp_path: Path) -> None:
    report = small(tmp_path, GRAY_SCOTT, trajectories=12)
    assert report.files["train"] == 6
    for path in (tmp_path / GRAY_SCOTT).rglob("*.hdf5"):
        with h5py.File(path) as file:
            feed, kill = file.attrs["F"], file.attrs["k"]
            assert path.stem.endswith(f"_F_{feed:g}_k_{kill:g}")
            assert file["scalars/F"][()] == np.float32(feed)
            assert file["dimensions/time"][:].tolist() == [0.0, 10.0, 20.0]
            assert file["dimensions/y"][:].tolist() == (-1 + np.arange(16) / 8).tolist()
            a, b = file["t0_fields/A"][:], file["t0_fields/B"][:]
            assert a.shape == b.shape == (int(file.attrs["n_trajectories"]), 3, 8, 16)
            np.testing.assert_allclose(a[:, 0] + b[:, 0], 1.0, rtol=1e-6)
            assert np.abs(np.diff(b, axis=1)).max() > 1e-3
            assert {item.attrs["bc_type"] for item in file["boundary_conditions"].values()} == {"PERIODIC"}
    card = read_card(tmp_path / GRAY_SCOTT / "card.yaml")
    regimes = next(parameter for parameter in card.parameters if parameter.name == "regime")
    assert regimes.values == ("gliders", "bubbles", "maze", "worms", "spirals", "spots")
    # A coarser grid keeps points of the same solution.
    small(tmp_path / "finer", GRAY_SCOTT, trajectories=12, resolution=(16, 32))
    coarse, fine = contents(tmp_path / GRAY_SCOTT), contents(tmp_path / "finer" / GRAY_SCOTT)
    for place, arrays in coarse.items():
        assert (arrays["t0_fields/B"] == fine[place]["t0_fields/B"][:, :, ::2, ::2]).all()


@pytest.mark.parametrize("name", [LAYER, GRAY_SCOTT])
def test_the_same_seed_gives_the_same_bits_whatever_the_number_of_processes(tmp_path: Path, name: str) -> None:
    alone = small(tmp_path / "alone", name)
    together = small(tmp_path / "together", name, jobs=3)
    other = small(tmp_path / "other", name, seed=5)
    assert (alone.jobs, together.jobs) == (1, 3)
    assert_equal(contents(alone.path), contents(together.path))
    for file in ("stats.yaml", "card.yaml"):
        assert (alone.path / file).read_bytes() == (together.path / file).read_bytes()
    field = "t0_fields/density" if name == LAYER else "t0_fields/A"
    last = {array[field][0, -1].tobytes() for tree in (alone, other) for array in contents(tree.path).values()}
    assert len(last) == sum(sum(tree.files.values()) for tree in (alone, other))  # every one is different


def test_the_noise_does_not_depend_on_the_resolution() -> None:
    def transverse(n: int) -> np.ndarray:
        x = -0.5 + (np.arange(n) + 0.5) / n
        state = initial_state(x, np.array([-1e-9, 1e-9]), 1.0, np.random.default_rng([2, 0, 0]))
        return np.asarray(state[2, :, 0] / state[0, :, 0] + 0.5 * inflow_velocity(1.0))

    fine, coarse = transverse(96), transverse(32)
    np.testing.assert_allclose(fine[1::3], coarse, atol=1e-12)
    assert np.sqrt((fine**2).mean()) == pytest.approx(0.01, rel=1e-6)


def test_the_layer_mixes_and_the_faster_it_cools_the_more_it_radiates() -> None:
    x, y = registry.get(LAYER).coordinates((32, 96))
    radiated, mixed = {}, {}
    for t_cool in (0.1, 3.0, 1e6):
        gas = CoolingGas2D(
            initial_state(x, y, 3.0, np.random.default_rng([1, 0, 0])),
            curve=CoolingCurve(t_cool),
            spacing=(1 / 32, 3 / 96),
            boundaries=("periodic", "open"),
        )
        gas.advance(60.0)
        density, _, _, pressure = gas.primitive()
        temperature = pressure / density
        radiated[t_cool] = gas.radiated
        mixed[t_cool] = np.mean((temperature > 0.03) & (temperature < 0.3))
    assert radiated[0.1] > 2.0 * radiated[3.0] > 0.0
    assert abs(radiated[1e6]) < 1e-3 * radiated[3.0]
    assert mixed[1e6] > 0.02  # turbulence makes gas of temperatures in between ...
    assert mixed[0.1] < 0.5 * mixed[1e6]  # ... which does not last where it cools fast


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": (8,)}, r"resolution 8 does not fit .* 2 numbers \(x, y\).* the original has 128x384"),
        ({"resolution": (4, 24)}, "each 8 or more"),
        ({"trajectories": 2}, "trajectories=2: 3 or more are needed"),
        ({"steps": 1}, "steps=1: a trajectory needs 2 or more frames"),
        ({"seed": -1}, "seed=-1; give a whole number from 0"),
        ({"seed": 2**63}, "seed=9223372036854775808; give a whole number from 0"),
        ({"jobs": 0}, "jobs=0: at least one process"),
        ({"parameters": {"t_cool": [1.0]}}, r"no parameter 't_cool'; it has tcool\. Did you mean tcool\?"),
        ({"parameters": {"tcool": [-1.0]}}, "parameter 'tcool' needs positive numbers, found -1.0"),
        ({"parameters": {"tcool": ["fast"]}}, "parameter 'tcool' needs positive numbers, found 'fast'"),
        ({"parameters": {"tcool": []}}, "needs one or more different values"),
        ({"parameters": {"tcool": [0.1, 0.1]}}, "needs one or more different values"),
        ({"name": GRAY_SCOTT, "parameters": {"regime": ["spot"]}}, "regime 'spot' is unknown; .* Did you mean spots"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        small(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_generator_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownDatasetError) as caught:
        generate("turbulent_radiative_layer_3D", tmp_path)
    assert "Did you mean turbulent_radiative_layer_2D?" in str(caught.value)
    assert f"These can be generated: {GRAY_SCOTT}, {LAYER}" in str(caught.value)
    assert registry.names() == [GRAY_SCOTT, LAYER]


def test_a_generated_dataset_is_replaced_only_on_request(tmp_path: Path) -> None:
    first = small(tmp_path)
    before = contents(first.path)
    with pytest.raises(ArgumentError, match=r"holds a generated dataset already; .* replace it with --overwrite"):
        small(tmp_path, seed=9)
    assert_equal(contents(first.path), before)
    small(tmp_path, seed=9, overwrite=True)
    assert {entry.name for entry in tmp_path.iterdir()} == {LAYER}
    after = contents(first.path)
    assert {str(arrays) for arrays in before.values()} != {str(arrays) for arrays in after.values()}


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_peoples_data_are_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    original = tmp_path / LAYER / "data" / "train" / "a.hdf5"
    original.parent.mkdir(parents=True)
    original.write_bytes(b"downloaded")
    with pytest.raises(ArgumentError, match="not generated by wellkit, which are never replaced"):
        small(tmp_path, overwrite=overwrite)
    assert original.read_bytes() == b"downloaded"
    assert {entry.name for entry in tmp_path.iterdir()} == {LAYER}


def test_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / LAYER).mkdir()
    small(tmp_path)
    assert (tmp_path / LAYER / "card.yaml").is_file()


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write .*: Not a directory"):
        small(tmp_path / "file")
    (tmp_path / LAYER).write_text("in the way")
    with pytest.raises(StorageError, match="a file of that name is there"):
        small(tmp_path, overwrite=True)


def test_no_room_is_told_before_the_first_trajectory(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*: \d+\.\d PB are needed and .* are free"):
        generate(GRAY_SCOTT, tmp_path / "new" / "base", resolution=(4096, 4096), trajectories=100_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", ["solver", "interrupt", "disk"])
def test_a_failed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    generator = registry.get(GRAY_SCOTT)
    simulate = type(generator).simulate
    calls = []

    def broken(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            if failure == "solver":
                raise DataValueError("the concentrations are no longer finite")
            raise KeyboardInterrupt if failure == "interrupt" else StorageError("cannot write x: the disk is full")
        return simulate(self, *arguments)

    monkeypatch.setattr(type(generator), "simulate", broken)
    expected = {"solver": DataValueError, "interrupt": KeyboardInterrupt, "disk": StorageError}[failure]
    with pytest.raises(expected) as caught:
        small(tmp_path, GRAY_SCOTT)
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []
    if failure == "solver":
        # Five trajectories of six settings: the third is of setting 2.
        assert str(caught.value).startswith(f"{GRAY_SCOTT}, F=0.029, k=0.057, trajectory 0: the concentrations are")


_RUN = """
import sys
from wellkit.generation.generate import generate
if __name__ == "__main__":
    generate("gray_scott_reaction_diffusion", sys.argv[1], resolution=(64, 64), trajectories=6, jobs=int(sys.argv[2]))
"""


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_run_leaves_no_dataset_and_no_process(tmp_path: Path, jobs: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(_RUN)
    target = tmp_path / "out"
    process = subprocess.Popen([sys.executable, str(script), str(target), str(jobs)])
    staging = target / f".{GRAY_SCOTT}.generating"
    _wait_for(lambda: (staging / "data" / "test").is_dir() and (jobs == 1 or len(_children(process.pid)) >= 3))
    with pytest.raises(ArgumentError, match="another process is generating"):
        small(target, GRAY_SCOTT)
    workers = _children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _wait_for(lambda: not any(Path(f"/proc/{worker}/cmdline").exists() and _runs(worker) for worker in workers))
    assert [entry.name for entry in target.iterdir()] == [staging.name]  # hidden, and no dataset of that name
    small(target, GRAY_SCOTT)  # the next run takes the leftovers away
    assert [entry.name for entry in target.iterdir()] == [GRAY_SCOTT]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from wellkit.errors import GenerationError\n"
        "from wellkit.generation.generate import generate\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        generate('gray_scott_reaction_diffusion', sys.argv[1], resolution=(64, 64), trajectories=6, jobs=2)\n"
        "    except GenerationError as error:\n"
        "        print(error)\n"
    )
    target = tmp_path / "out"
    process = subprocess.Popen([sys.executable, str(script), str(target)], stdout=subprocess.PIPE, text=True)

    def kill_a_worker() -> None:
        _wait_for(lambda: len(_workers(process.pid)) == 2)
        for worker in _workers(process.pid)[:1]:
            subprocess.run(["kill", "-KILL", str(worker)], check=True)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    output, _ = process.communicate(timeout=60)
    killer.join()
    assert process.returncode == 0
    assert output.startswith(f"{GRAY_SCOTT}, F=")
    assert "a worker process died; either memory ran out" in output
    assert not target.exists()


def _workers(pid: int) -> list[int]:
    """Spawned workers that are at work; the resource tracker is a child too."""
    return [child for child in _children(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
