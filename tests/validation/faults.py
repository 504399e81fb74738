"""The catalogue of faults: how each is planted into a clean tree, and where it has to be found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import yaml

from tests.validation.trees import NAME, SPACING, STEPS, VISCOSITIES, make_shard, waves, write_card
from wellkit.formats.well_writer import write_well_shard

SHARD = "data/train/train_1.hdf5"
OTHER = "data/train/train_0.hdf5"
DENSITY = "t0_fields/density"
Plant = Callable[[Path], None]


class Fault(NamedTuple):
    """A fault, its code, and what the finding has to name."""

    name: str
    code: str
    plant: Plant
    where: dict[str, Any]
    card: bool = True


FAULTS: list[Fault] = []


def fault(code: str, *, card: bool = True, **where: Any) -> Callable[[Plant], Plant]:
    """Add a fault to the catalogue."""

    def add(plant: Plant) -> Plant:
        FAULTS.append(Fault(plant.__name__, code, plant, where, card))
        return plant

    return add


def edit(change: Callable[[h5py.File], object]) -> Plant:
    def plant(tree: Path) -> None:
        with h5py.File(tree / SHARD, "r+") as file:
            change(file)

    return plant


def values(file: h5py.File, name: str = DENSITY) -> Any:
    return file[name]


# files


@fault("unreadable", shard=SHARD)
def an_error_page_saved_as_a_shard(tree: Path) -> None:
    (tree / SHARD).write_text("<!doctype html><title>503 Service Unavailable</title>")


@fault("unreadable", shard=SHARD)
def a_shard_that_is_cut_off(tree: Path) -> None:
    whole = (tree / SHARD).read_bytes()
    (tree / SHARD).write_bytes(whole[: len(whole) * 2 // 3])


@fault("unreadable", shard=SHARD)
def an_empty_file(tree: Path) -> None:
    (tree / SHARD).write_bytes(b"")


@fault("unreadable", shard=SHARD)
def a_link_to_nothing(tree: Path) -> None:
    (tree / SHARD).unlink()
    (tree / SHARD).symlink_to(tree / "gone.hdf5")


@fault("unwritten", shard=SHARD, field="density")
def chunks_that_were_never_written(tree: Path) -> None:
    with h5py.File(tree / SHARD, "r+") as file:
        old = file[DENSITY]
        kept, attributes = old[()], dict(old.attrs)
        del file[DENSITY]
        new = file.create_dataset(DENSITY, shape=kept.shape, dtype="f4", chunks=(1, 4, 16, 12))
        new[0], new[1, :8] = kept[0], kept[1, :8]
        new.attrs.update(attributes)


@fault("empty-split", split="valid")
def a_split_without_shards(tree: Path) -> None:
    for path in (tree / "data/valid").iterdir():
        path.unlink()


@fault("stray-file", shard="data/train/train_2.hdf5.partial")
def a_download_that_was_broken_off(tree: Path) -> None:
    (tree / "data/train/train_2.hdf5.partial").write_bytes(b"\x89HDF")


@fault("wasted-space", shard=SHARD)
def a_file_that_holds_what_was_deleted(tree: Path) -> None:
    with h5py.File(tree / SHARD, "r+") as file:
        file.create_dataset("scratch", data=np.ones(10_000_000, np.float32))
        file.create_dataset("kept", data=np.ones(4))  # lies behind it, so that the file cannot be cut off
        file.flush()
        del file["scratch"]


# format


@fault("format", shard=SHARD)
def no_dimensions(tree: Path) -> None:
    edit(lambda file: file.__delitem__("dimensions"))(tree)


@fault("format", shard=SHARD)
def an_attribute_is_missing(tree: Path) -> None:
    edit(lambda file: file[DENSITY].attrs.__delitem__("time_varying"))(tree)


@fault("format", shard=SHARD)
def an_array_shorter_than_the_time_axis(tree: Path) -> None:
    def cut(file: h5py.File) -> None:
        kept, attributes = file[DENSITY][:, :-1], dict(file[DENSITY].attrs)
        del file[DENSITY]
        file.create_dataset(DENSITY, data=kept).attrs.update(attributes)

    edit(cut)(tree)


@fault("format", shard=SHARD)
def more_trajectories_promised_than_stored(tree: Path) -> None:
    edit(lambda file: file.attrs.__setitem__("n_trajectories", 3))(tree)


@fault("format", shard=SHARD)
def an_unknown_boundary_type(tree: Path) -> None:
    edit(lambda file: file["boundary_conditions/y_wall"].attrs.__setitem__("bc_type", "SPONGE"))(tree)


@fault("format", shard=SHARD)
def a_listed_array_that_is_not_there(tree: Path) -> None:
    edit(lambda file: file.__delitem__(DENSITY))(tree)


@fault("unlisted-array", shard=SHARD, field="energy")
def an_array_that_no_list_names(tree: Path) -> None:
    edit(lambda file: file["t0_fields"].create_dataset("energy", data=np.ones(3, "f4")))(tree)


@fault("element-type", shard=SHARD, field="density")
def a_field_in_double_precision(tree: Path) -> None:
    def widen(file: h5py.File) -> None:
        kept, attributes = file[DENSITY][()].astype("f8"), dict(file[DENSITY].attrs)
        del file[DENSITY]
        file.create_dataset(DENSITY, data=kept).attrs.update(attributes)

    edit(widen)(tree)


@fault("missing-parameter", shard=SHARD)
def a_parameter_without_a_value(tree: Path) -> None:
    edit(lambda file: file.attrs.__setitem__("simulation_parameters", ["viscosity", "gravity"]))(tree)


@fault("parameter-mismatch", shard=SHARD, field="scalars/viscosity")
def a_scalar_that_contradicts_the_attribute(tree: Path) -> None:
    edit(lambda file: file["scalars/viscosity"].__setitem__((), VISCOSITIES[0]))(tree)


@fault("bad-scalar", shard=SHARD, field="scalars/viscosity")
def a_scalar_that_is_no_number(tree: Path) -> None:
    edit(lambda file: file["scalars/viscosity"].__setitem__((), np.nan))(tree)


@fault("bad-axis", shard=SHARD, field="dimensions/x")
def coordinates_out_of_order(tree: Path) -> None:
    edit(lambda file: file["dimensions/x"].__setitem__(4, 0.9))(tree)


@fault("bad-axis", shard=SHARD, field="dimensions/y")
def coordinates_that_are_no_numbers(tree: Path) -> None:
    edit(lambda file: file["dimensions/y"].__setitem__(3, np.nan))(tree)


@fault("uneven-axis", card=False, shard=SHARD, field="dimensions/x")
def an_uneven_grid_without_a_card(tree: Path) -> None:
    edit(lambda file: file["dimensions/x"].__setitem__((), file["dimensions/x"][()] ** 2))(tree)


@fault("bad-time", shard=SHARD, frames=(5, 6))
def times_that_stand_still(tree: Path) -> None:
    edit(lambda file: file["dimensions/time"].__setitem__(5, file["dimensions/time"][4]))(tree)


@fault("uneven-time", card=False, shard=SHARD)
def a_frame_that_is_missing_from_the_times(tree: Path) -> None:
    edit(lambda file: file["dimensions/time"].__setitem__(slice(6, None), SPACING * np.arange(7, STEPS + 1)))(tree)


@fault("boundary-mask", shard=SHARD, field="boundary_conditions/y_wall")
def a_wall_that_is_nowhere(tree: Path) -> None:
    edit(lambda file: file["boundary_conditions/y_wall/mask"].__setitem__((), False))(tree)


@fault("shards-differ", shard=SHARD)
def a_shard_of_another_grid_type(tree: Path) -> None:
    edit(lambda file: file.attrs.__setitem__("grid_type", "spherical"))(tree)


# the card


@fault("bad-card")
def a_card_with_a_misspelt_key(tree: Path) -> None:
    write_card(tree, licence_="CC0-1.0")


@fault("card-name", shard=SHARD)
def a_shard_of_another_dataset(tree: Path) -> None:
    edit(lambda file: file.attrs.__setitem__("dataset_name", "ripples"))(tree)


@fault("card-fields", shard=SHARD, field="pressure")
def a_field_that_is_missing(tree: Path) -> None:
    def drop(file: h5py.File) -> None:
        del file["t0_fields/pressure"]
        file["t0_fields"].attrs["field_names"] = ["density", "mask"]

    edit(drop)(tree)


@fault("card-fields", shard=SHARD, field="t0_fields")
def channels_in_another_order(tree: Path) -> None:
    edit(lambda file: file["t0_fields"].attrs.__setitem__("field_names", ["pressure", "density", "mask"]))(tree)


@fault("card-scalars", shard=SHARD, field="scalars/viscosity")
def a_scalar_that_is_missing(tree: Path) -> None:
    def drop(file: h5py.File) -> None:
        del file["scalars/viscosity"]
        file["scalars"].attrs["field_names"] = np.array([], dtype=h5py.string_dtype())

    edit(drop)(tree)


@fault("card-parameters", shard=SHARD)
def a_parameter_off_the_list(tree: Path) -> None:
    def change(file: h5py.File) -> None:
        file.attrs["viscosity"] = 0.03
        file["scalars/viscosity"][()] = 0.03

    edit(change)(tree)


@fault("card-resolution", shard=SHARD)
def another_resolution_than_the_cards(tree: Path) -> None:
    card = yaml.safe_load((tree / "card.yaml").read_text())
    card["grid"]["axes"][1]["points"] = 24
    (tree / "card.yaml").write_text(yaml.safe_dump(card))


@fault("card-grid", shard=SHARD, field="dimensions/x")
def a_grid_in_another_unit(tree: Path) -> None:
    edit(lambda file: file["dimensions/x"].__setitem__((), 100 * file["dimensions/x"][()]))(tree)


@fault("card-grid", shard=SHARD, field="dimensions/y")
def a_stretched_grid(tree: Path) -> None:
    edit(lambda file: file["dimensions/y"].__setitem__((), file["dimensions/y"][()] ** 1.5))(tree)


@fault("card-steps", shard=SHARD)
def a_trajectory_too_long(tree: Path) -> None:
    write_well_shard(tree / SHARD, make_shard(1, VISCOSITIES[1], steps=STEPS + 3))


@fault("card-time", shard=SHARD)
def another_time_step_than_the_cards(tree: Path) -> None:
    edit(lambda file: file["dimensions/time"].__setitem__((), 2 * SPACING * np.arange(STEPS)))(tree)


@fault("card-boundaries", shard=SHARD)
def another_boundary_condition(tree: Path) -> None:
    edit(lambda file: file["boundary_conditions/y_wall"].attrs.__setitem__("bc_type", "OPEN"))(tree)


@fault("card-counts", split="train")
def a_shard_too_many(tree: Path) -> None:
    write_well_shard(tree / "data/train/train_9.hdf5", make_shard(9, VISCOSITIES[0]))


@fault("incomplete", split="train")
def a_shard_too_few(tree: Path) -> None:
    (tree / SHARD).unlink()


@fault("card-size")
def a_size_that_the_shapes_do_not_make(tree: Path) -> None:
    write_card(tree, sizes={"nominal_bytes": 123_456_789})


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


def declare_mask(tree: Path) -> None:
    """Have the card say that NaN in density mark what lies outside the domain."""
    card = yaml.safe_load((tree / "card.yaml").read_text())
    card["fields"][0]["nan_mask"] = "outside the domain"
    (tree / "card.yaml").write_text(yaml.safe_dump(card))


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


def statistics(tree: Path) -> Any:
    return yaml.safe_load((tree / "stats.yaml").read_text())


def record(tree: Path, content: Any) -> None:
    (tree / "stats.yaml").write_text(yaml.safe_dump(content))


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


assert len({one.name for one in FAULTS}) == len(FAULTS)
assert NAME == "waves"
