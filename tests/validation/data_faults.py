"""Faults of values and of statistics."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np

from tests.validation.faults import DENSITY, OTHER, SHARD, declare_mask, edit, fault, record, statistics, values
from tests.validation.trees import STEPS, waves, write_card

# data


@fault("nan", shard=SHARD, trajectory=1, frames=(3, 5), field="density")
def nan_in_two_frames(tree: Path) -> None:
    edit(lambda file: values(file).__setitem__((1, slice(3, 5), 2, 7), np.nan))(tree)


@fault("nan", shard=SHARD, field="mask")
def nan_in_a_constant_field(tree: Path) -> None:
    edit(lambda file: values(file, "t0_fields/mask").__setitem__((2, 7), np.nan))(tree)


@fault("infinity", shard=SHARD, trajectory=0, frames=(8, 9), field="velocity")
def an_overflow(tree: Path) -> None:
    edit(lambda file: values(file, "t1_fields/velocity").__setitem__((0, 8, 3, 3, 1), -np.inf))(tree)


@fault("nan-mask-moves", shard=SHARD, trajectory=0, frames=(6, 7), field="density")
def nan_beyond_the_declared_mask(tree: Path) -> None:
    declare_mask(tree)
    for path in (tree / "data").rglob("*.hdf5"):
        with h5py.File(path, "r+") as file:
            file[DENSITY][:, :, :3, :3] = np.nan
    edit(lambda file: values(file).__setitem__((0, 6, 9, 9), np.nan))(tree)


@fault("constant-frames", shard=SHARD, trajectory=1, frames=(6, 8), field="pressure")
def frames_that_hold_one_value(tree: Path) -> None:
    edit(lambda file: values(file, "t0_fields/pressure").__setitem__((1, slice(6, 8)), 20.0))(tree)


@fault("constant-frames", shard=SHARD, trajectory=0, frames=(11, 12), field="density")
def a_last_frame_of_zeros(tree: Path) -> None:
    edit(lambda file: values(file).__setitem__((0, 11), 0.0))(tree)


@fault("constant-field", shard=SHARD, trajectory=0, field="pressure")
def a_field_that_was_never_filled(tree: Path) -> None:
    edit(lambda file: values(file, "t0_fields/pressure").__setitem__(0, 0.0))(tree)


@fault("frozen-frames", shard=SHARD, trajectory=1, frames=(7, 12), field="density")
def a_trajectory_that_freezes(tree: Path) -> None:
    edit(lambda file: values(file).__setitem__((1, slice(7, None)), file[DENSITY][1, 6]))(tree)


@fault("frozen-frames", shard=SHARD, trajectory=1, frames=(4, 5), field="velocity")
def a_frame_written_twice(tree: Path) -> None:
    name = "t1_fields/velocity"
    edit(lambda file: file[name].__setitem__((1, 4), file[name][1, 3]))(tree)


@fault("frozen-frames", shard=SHARD, trajectory=0, frames=(0, 4), field="density")
def a_trajectory_that_starts_late(tree: Path) -> None:
    edit(lambda file: values(file).__setitem__((0, slice(0, 4)), file[DENSITY][0, 3]))(tree)


@fault("frozen-field", shard=SHARD, trajectory=0, field="pressure")
def one_field_that_never_changes(tree: Path) -> None:
    name = "t0_fields/pressure"
    edit(lambda file: file[name].__setitem__(0, np.broadcast_to(file[name][0, 0], file[name].shape[1:])))(tree)


@fault("frozen-trajectory", shard=SHARD, trajectory=1)
def a_trajectory_that_never_changes(tree: Path) -> None:
    def freeze(file: h5py.File) -> None:
        for name in (DENSITY, "t0_fields/pressure", "t1_fields/velocity", "t2_fields/stress"):
            file[name][1] = np.broadcast_to(file[name][1, 0], file[name].shape[1:])

    edit(freeze)(tree)


@fault("duplicated-frames", shard=SHARD, trajectory=0, frames=(8, 11), field="density")
def frames_that_come_again(tree: Path) -> None:
    edit(lambda file: values(file).__setitem__((0, slice(8, 11)), file[DENSITY][0, 2:5]))(tree)


@fault("duplicated-frames", shard=SHARD, trajectory=1, frames=(5, 8))
def frames_of_another_trajectory(tree: Path) -> None:
    def copy(file: h5py.File) -> None:
        for name in (DENSITY, "t0_fields/pressure", "t1_fields/velocity", "t2_fields/stress"):
            file[name][1, 5:8] = file[name][0, 5:8]

    edit(copy)(tree)


@fault("duplicated-trajectory", shard=SHARD, trajectory=1)
def a_trajectory_that_is_there_twice(tree: Path) -> None:
    def copy(file: h5py.File) -> None:
        for name in (DENSITY, "t0_fields/pressure", "t1_fields/velocity", "t2_fields/stress"):
            file[name][1] = file[name][0]

    edit(copy)(tree)


@fault("leakage", split="test", shard="data/test/test_0.hdf5")
def a_training_shard_among_the_tests(tree: Path) -> None:
    shutil.copyfile(tree / OTHER, tree / "data/test/test_0.hdf5")


@fault("leakage", split="test", shard="data/test/test_0.hdf5", trajectory=1)
def a_stretch_of_training_among_the_tests(tree: Path) -> None:
    with h5py.File(tree / OTHER) as train, h5py.File(tree / "data/test/test_0.hdf5", "r+") as test:
        for name in (DENSITY, "t0_fields/pressure", "t1_fields/velocity", "t2_fields/stress"):
            test[name][1, 4:] = train[name][0, :-4]


@fault("shared-field", shard=SHARD, trajectory=1, field="pressure")
def a_field_copied_from_another_trajectory(tree: Path) -> None:
    name = "t0_fields/pressure"
    edit(lambda file: file[name].__setitem__(1, file[name][0]))(tree)


@fault("outlier-frames", shard=SHARD, trajectory=0, frames=(5, 6), field="density")
def a_flipped_bit(tree: Path) -> None:
    def flip(file: h5py.File) -> None:
        number = np.array(file[DENSITY][0, 5, 4, 4])
        file[DENSITY][0, 5, 4, 4] = (number.view(np.uint32) ^ np.uint32(1 << 28)).view(np.float32)

    edit(flip)(tree)


@fault("outlier-frames", shard=SHARD, trajectory=1, frames=(11, 12), field="velocity")
def a_simulation_that_blows_up(tree: Path) -> None:
    name = "t1_fields/velocity"
    edit(lambda file: file[name].__setitem__((1, 11), 1e5 * file[name][1, 11]))(tree)


@fault("outlier-trajectory", shard=SHARD, trajectory=1, field="pressure")
def a_trajectory_in_another_unit(tree: Path) -> None:
    name = "t0_fields/pressure"
    edit(lambda file: file[name].__setitem__(1, 1e5 * file[name][1]))(tree)


@fault("fill-value", shard=SHARD, trajectory=1, field="density")
def missing_values_as_a_fill(tree: Path) -> None:
    edit(lambda file: values(file).__setitem__((1, slice(None), 0, slice(0, 3)), -9999.0))(tree)


@fault("zeroed-region", shard=SHARD, trajectory=0, frames=(4, 5), field="pressure")
def a_lost_page(tree: Path) -> None:
    edit(lambda file: values(file, "t0_fields/pressure").__setitem__((0, 4, slice(0, 5)), 0.0))(tree)


@fault("zeroed-region", shard=SHARD, trajectory=0, field="density")
def a_writer_that_stopped_halfway(tree: Path) -> None:
    def stop(file: h5py.File) -> None:
        file[DENSITY][0, 7, 8:] = 0.0
        file[DENSITY][0, 8:, 8:] = 0.0

    edit(stop)(tree)


@fault("discontinuity", shard=SHARD, trajectory=1, frames=(6, 7), field="density")
def two_runs_spliced(tree: Path) -> None:
    def splice(file: h5py.File) -> None:
        for number in (0, 1):
            slow = 5 + 0.05 * waves(900 + number, STEPS, 1)[..., 0] + waves(70 + number, 1, 1)[..., 0]
            file[DENSITY][number] = slow
        file[DENSITY][1, 6:] = 5 + waves(77, 1, 1)[..., 0] + 0.05 * waves(901, STEPS, 1)[6:, ..., 0]

    edit(splice)(tree)


@fault("asymmetric-tensor", shard=SHARD, trajectory=0, frames=(2, 4), field="stress")
def a_tensor_that_is_not_symmetric(tree: Path) -> None:
    edit(lambda file: values(file, "t2_fields/stress").__setitem__((0, slice(2, 4), 5, 5, 0, 1), 9.0))(tree)


# statistics


@fault("no-statistics")
def statistics_that_are_missing(tree: Path) -> None:
    (tree / "stats.yaml").unlink()


@fault("bad-statistics")
def statistics_without_a_field(tree: Path) -> None:
    content = statistics(tree)
    for key in content:
        content[key].pop("density")
    record(tree, content)


@fault("bad-statistics")
def statistics_that_are_an_error_page(tree: Path) -> None:
    (tree / "stats.yaml").write_text("<html>503</html>")


@fault("statistics-differ", field="density")
def a_standard_deviation_of_other_data(tree: Path) -> None:
    content = statistics(tree)
    content["std"]["density"] *= 1.01
    content["rms"]["density"] = float(np.hypot(content["mean"]["density"], content["std"]["density"]))
    record(tree, content)


@fault("statistics-differ", field="velocity[1]")
def components_that_were_exchanged(tree: Path) -> None:
    content = statistics(tree)
    for key in content:
        content[key]["velocity"].reverse()
    record(tree, content)


@fault("impossible-statistics", field="density")
def a_mean_of_differences_that_is_half_the_mean(tree: Path) -> None:
    content = statistics(tree)
    content["mean_delta"]["density"] = 0.75 * content["mean"]["density"]
    content["rms_delta"]["density"] = float(np.hypot(content["mean_delta"]["density"], content["std_delta"]["density"]))
    record(tree, content)


@fault("impossible-statistics", field="pressure")
def an_rms_that_the_mean_and_std_do_not_make(tree: Path) -> None:
    content = statistics(tree)
    content["rms"]["pressure"] *= 1.1
    record(tree, content)


@fault("card-statistics", field="density")
def a_card_with_other_statistics(tree: Path) -> None:
    content = statistics(tree)
    content["std"]["density"] *= 1.2
    write_card(tree, statistics=content | {"provenance": "a test", "digits": 5})
