"""Faults of files, of the format, and of what a card says."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import yaml

from tests.validation.faults import DENSITY, SHARD, edit, fault
from tests.validation.trees import SPACING, STEPS, VISCOSITIES, make_shard, write_card
from wellkit.formats.well_writer import write_well_shard

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
