"""Checks of `WellDataset`'s arguments, before any file is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

from wellkit.errors import ArgumentError


@dataclass(frozen=True)
class DatasetArguments:
    """The arguments whose values restrict each other."""

    n_steps_input: int
    n_steps_output: int
    min_dt_stride: int
    max_dt_stride: int
    max_rollout_steps: int | None
    full_trajectory_mode: bool
    start_output_steps_at_t: int
    boundary_return_type: str | None
    errata: str
    rollout_length: str
    seed: int
    restriction_seed: int
    min_std: float
    fields: Sequence[str] | str | None


_WHOLE_NUMBERS = (
    ("n_steps_input", 1),
    ("n_steps_output", 0),
    ("min_dt_stride", 1),
    ("max_dt_stride", 1),
    ("seed", 0),
    ("restriction_seed", 0),
)


def _is_whole(value: object, least: int) -> bool:
    """Whether `value` is a whole number, Python's or NumPy's, from `least` up."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def as_list(names: Sequence[str] | str) -> list[str]:
    """Names, or a single one: text is itself a sequence, and its letters match nearly everything."""
    return [names] if isinstance(names, str) else list(names)


def check_arguments(given: DatasetArguments) -> None:
    """Raise ArgumentError for values that make no sense alone or together."""
    for name, least in _WHOLE_NUMBERS:
        value = getattr(given, name)
        if not _is_whole(value, least):
            raise ArgumentError(f"{name}={value!r}; give a whole number from {least} up")
    if given.max_dt_stride < given.min_dt_stride:
        raise ArgumentError(f"max_dt_stride={given.max_dt_stride} is below min_dt_stride={given.min_dt_stride}")
    if given.max_rollout_steps is not None and not _is_whole(given.max_rollout_steps, 1):
        raise ArgumentError(
            f"max_rollout_steps={given.max_rollout_steps}; give a whole number from 1 up, or None for no limit"
        )
    if given.boundary_return_type not in ("padding", None):
        raise ArgumentError(
            f"boundary_return_type={given.boundary_return_type!r}: only 'padding' (codes an axis and side) and None "
            "are available"
        )
    if given.errata not in ("warn", "exclude", "keep"):
        raise ArgumentError(f"errata={given.errata!r}; choose 'warn', 'exclude' or 'keep'")
    if not (isinstance(given.min_std, Real) and 0 <= given.min_std < float("inf")):
        raise ArgumentError(f"min_std={given.min_std!r}; give a number from 0 up: the smallest divisor")
    if given.fields is not None and not as_list(given.fields):
        raise ArgumentError("fields=[] leaves nothing to read; name fields, or give None for all")
    if given.rollout_length not in ("own", "shortest"):
        raise ArgumentError(f"rollout_length={given.rollout_length!r}; choose 'own' or 'shortest'")
    if not given.full_trajectory_mode:
        return
    if given.min_dt_stride < given.max_dt_stride:
        raise ArgumentError(
            f"full_trajectory_mode needs one stride, found {given.min_dt_stride} to {given.max_dt_stride}; "
            "set max_dt_stride to min_dt_stride"
        )
    first_output = given.n_steps_input * given.min_dt_stride
    if 0 <= given.start_output_steps_at_t < first_output:
        raise ArgumentError(
            f"start_output_steps_at_t={given.start_output_steps_at_t}, but {given.n_steps_input} input steps with "
            f"stride {given.min_dt_stride} end before frame {first_output} at the earliest"
        )


def check_crop(crop: Sequence[tuple[int, int]] | None, resolution: tuple[int, ...]) -> tuple[slice, ...]:
    """`crop` as a slice for each spatial axis; None is the whole box.

    Raises:
        ArgumentError: the number of pairs is not that of the axes, or a pair is no range inside its axis.
    """
    if crop is None:
        return tuple(slice(0, size) for size in resolution)
    if not isinstance(crop, Sequence) or not all(isinstance(pair, Sequence) for pair in crop):
        raise ArgumentError(f"crop={crop!r}; give a pair (first, last) of grid indices for each axis")
    if len(crop) != len(resolution):
        raise ArgumentError(f"crop={list(crop)} has {len(crop)} pairs for {len(resolution)} spatial axes")
    slices = []
    for number, (pair, size) in enumerate(zip(crop, resolution, strict=True)):
        if len(pair) != 2 or not 0 <= pair[0] < pair[1] <= size:
            raise ArgumentError(
                f"crop={list(crop)}: axis {number} needs 0 <= first < last <= {size}, found {tuple(pair)}"
            )
        slices.append(slice(int(pair[0]), int(pair[1])))
    return tuple(slices)


def check_random_crop(sizes: Sequence[int] | int | None, box: Sequence[slice]) -> tuple[int, ...] | None:
    """Points along each spatial axis of a box drawn for each sample; None where there is none.

    Raises:
        ArgumentError: the number of sizes is not that of the axes, or one does not fit into `box`.
    """
    if sizes is None:
        return None
    given = (sizes,) * len(box) if isinstance(sizes, Integral) else sizes
    if not isinstance(given, Sequence) or len(given) != len(box):
        raise ArgumentError(f"random_crop={sizes!r}; give one size, or {len(box)}, one for each spatial axis")
    for number, (size, part) in enumerate(zip(given, box, strict=True)):
        if not _is_whole(size, 1) or size > part.stop - part.start:
            raise ArgumentError(
                f"random_crop={sizes!r}: axis {number} has {part.stop - part.start} points to choose from, "
                f"found {size!r}; give a whole number from 1 to that"
            )
    return tuple(int(size) for size in given)
