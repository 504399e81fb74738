"""Whether a result can be what it says: its seal, its protocol, and every figure that follows from its trajectories.

A hash only shows that a result was not changed by accident: who changes it on purpose hashes it anew. So the figures
are computed again here, from what the result says of each trajectory. What no such check can find is a set of numbers
invented as a whole: for that, `wellkit leaderboard add --predictions` scores the predictions again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from wellkit.benchmark.protocols import PROTOCOLS
from wellkit.benchmark.recounting import (
    Check,
    check_curves,
    check_drift,
    check_one_step,
    check_rollout,
    check_score,
    check_valid_length,
    mean,
    shown,
)
from wellkit.errors import did_you_mean
from wellkit.schemas.protocol import Protocol
from wellkit.schemas.result import Result, TrajectoryScores, content_hash

BASELINES = ("persistence", "mean")


def check_result(result: Result, *, source: str) -> None:
    """Refuse a result that cannot have been scored as it says.

    Args:
        source: where it came from, for the message.

    Raises:
        ScoreError: names the first thing that does not fit, as it is and as it would have to be.
    """
    check = Check(source)
    _check_protocol(check, result.protocol)
    _check_seal(check, result)
    _check_model(check, result)
    _check_identity(check, result)
    for number, trajectory in enumerate(result.trajectories):
        _check_trajectory(check, result, trajectory, f"trajectories.{number}")
    check_one_step(check, result)
    check_rollout(check, result)
    check_curves(check, result)
    check_valid_length(check, result)
    check_drift(check, result)


def _check_protocol(check: Check, protocol: Protocol) -> None:
    if protocol.name not in PROTOCOLS:
        check.refuse(
            f"protocol {protocol.name!r} is unknown here (known: {', '.join(PROTOCOLS)})"
            f"{did_you_mean(protocol.name, PROTOCOLS).removesuffix('?')}"
        )
    frozen = PROTOCOLS[protocol.name]
    if protocol.definition_sha256 != frozen.definition_sha256:
        ours, theirs = frozen.model_dump(), protocol.model_dump()
        changed = [f"{key} is {theirs[key]!r}, not {ours[key]!r}" for key in ours if ours[key] != theirs[key]]
        check.refuse(f"protocol {protocol.name} is altered: {'; '.join(changed)}")


def _check_seal(check: Check, result: Result) -> None:
    try:
        digest = result.digest()
    except ValueError:  # JSON has no word for them, and only scores have one of ours
        check.refuse("a number that must be finite is infinite or not a number")
    check.same("sha256", result.sha256, digest, "the content gives")
    for part, left_out in (
        ("model", {"arguments", "seed", "trained_on"}),
        ("run", set()),
        ("one_step", set()),
        ("rollout", set()),
    ):
        for name, value in _numbers(getattr(result, part).model_dump(exclude=left_out), part):
            if value < 0:
                check.refuse(f"{name} is {shown(value)}, and cannot be below 0")


def _numbers(content: Any, name: str) -> Iterable[tuple[str, float]]:
    """All numbers in a document's content, with the path to each."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _numbers(value, f"{name}.{key}")
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _numbers(value, f"{name}.{number}")
    elif isinstance(content, float | int) and not isinstance(content, bool):
        yield name, content


def _check_model(check: Check, result: Result) -> None:
    model, protocol = result.model, result.protocol
    if protocol.n_steps_input not in (None, model.n_steps_input):
        check.refuse(
            f"model.n_steps_input is {model.n_steps_input}, and protocol {protocol.name} gives {protocol.n_steps_input}"
        )
    if protocol.first_frame(model.n_steps_input) < model.n_steps_input:
        check.refuse(f"model.n_steps_input is {model.n_steps_input}, and rollouts begin at {protocol.rollout_from}")
    if model.kind != "baseline":
        return
    if model.name not in BASELINES:
        check.refuse(f"model {model.name!r} is no baseline: those are {' and '.join(BASELINES)}")
    if model.parameters or model.arguments or model.weights_sha256 is not None or model.seed is not None:
        check.refuse(f"baseline {model.name} has neither weights, arguments nor a seed")


def _check_identity(check: Check, result: Result) -> None:
    data, trajectories = result.dataset, result.trajectories
    for name, text in (
        ("model.name", result.model.name),
        *((f"dataset.{key}", getattr(data, key)) for key in ("name", "generator", "split")),
        ("data.dataset_version", result.data.dataset_version),
        *(("a name of dataset.fields or files", each) for each in (*data.fields, *data.files)),
    ):
        if text is not None and not text.isprintable():  # a terminal would do what it says
            check.refuse(f"{name} is {text!r}, which is not one line of printable text")
    if not len(data.files) == len(data.trajectories) == len(data.steps) or not data.files:
        check.refuse(
            f"dataset has {len(data.files)} files, numbers of trajectories for {len(data.trajectories)} and of frames "
            f"for {len(data.steps)}"
        )
    # Before they are listed one by one: a count may be any number.
    if min(data.trajectories) < 1 or sum(data.trajectories) != len(trajectories):
        check.refuse(
            f"{len(trajectories)} trajectories are told of, dataset names {shown(sum(data.trajectories))}: their count "
            "does not fit"
        )
    listed = [
        (file, number, steps)
        for file, count, steps in zip(data.files, data.trajectories, data.steps, strict=True)
        for number in range(count)
    ]
    found = [(each.file, each.trajectory, each.frames) for each in trajectories]
    if found != listed or not listed:
        wrong = next(
            (f"number {i}" for i, pair in enumerate(zip(found, listed, strict=False)) if pair[0] != pair[1]), ""
        )
        check.refuse(
            f"{len(found)} trajectories are told of, dataset names {len(listed)} (file, number, frames): "
            f"{wrong or 'their count'} does not fit"
        )
    for name in ("fields", "files"):
        if len(set(getattr(data, name))) != len(getattr(data, name)) or not getattr(data, name):
            check.refuse(f"dataset.{name} is empty or names one twice")
    for number, each in enumerate(trajectories):
        if not re.fullmatch("[0-9a-f]{64}", each.content_sha256):
            check.refuse(f"trajectories.{number}.content_sha256 is {each.content_sha256[:70]!r}, which is no SHA-256")
    found_hash = content_hash([each.content_sha256 for each in trajectories])
    check.same("data.content_sha256", result.data.content_sha256, found_hash)
    if result.rollout_limit is not None and result.rollout_limit < 1:
        check.refuse(f"rollout_limit is {result.rollout_limit}, which is no number of steps")


def _check_trajectory(check: Check, result: Result, each: TrajectoryScores, name: str) -> None:
    protocol, fields = result.protocol, result.dataset.fields
    first = protocol.first_frame(result.model.n_steps_input)
    check.same(f"{name}.windows", each.windows, each.frames - result.model.n_steps_input, "its frames give")
    length = min(each.frames - first, result.rollout_limit or each.frames)
    check.same(f"the number of steps in {name}.rollout", len(each.rollout), length, "its frames give")
    if each.windows < 1 or length < 1:
        check.refuse(f"{name} has {each.windows} windows and {length} rollout steps")
    for part, values, counted, rows, flat, bad in (
        ("one_step", each.one_step, each.counted, each.windows, each.flat, each.nonfinite),
        ("rollout_per_field", each.rollout_per_field, each.rollout_counted, length, each.rollout_flat,
         each.rollout_nonfinite),
    ):  # fmt: skip
        check.keys(f"{name}.{part}", values, fields)
        check.keys(f"counts of {name}.{part}", counted, fields)
        entries = rows * len(fields)
        check.within(f"flat entries of {name}.{part}", flat, 0, entries)
        check.within(f"entries that are not finite of {name}.{part}", bad, 0, entries)
        for field, value in values.items():
            check.within(f"count of {name}.{part}.{field}", counted[field], 0, rows)
            check_score(check, f"{name}.{part}.{field}", value, missing=counted[field] == 0)
        # A flat entry is left out unless its prediction is not finite.
        left_out = entries - sum(counted.values())
        least, most = (0, 0) if protocol.flat == "scored" else (max(0, flat - bad), flat)
        check.within(f"entries left out of {name}.{part}", left_out, least, most)
        check.same(f"whether {name}.{part} is infinite", math.inf in values.values(), bad > 0, "the count gives")
    for step, value in enumerate(each.rollout):
        check_score(check, f"{name}.rollout.{step}", value, missing=value != value and each.rollout_flat > 0)
    infinite = math.inf in each.rollout
    check.same(f"whether {name}.rollout is infinite", infinite, each.rollout_nonfinite > 0, "the count gives")
    check.keys(f"{name}.one_step_error", each.one_step_error, fields)
    check.keys(f"{name}.one_step_variance", each.one_step_variance, fields)
    for field in fields:
        error, variance = each.one_step_error[field], each.one_step_variance[field]
        check_score(check, f"{name}.one_step_error.{field}", error)
        check_score(check, f"{name}.one_step_variance.{field}", variance)
        check.same(f"whether {name}.one_step_error.{field} is infinite", error == math.inf,
                   each.one_step[field] == math.inf, "its score gives")  # fmt: skip
        if not math.isfinite(variance):
            check.refuse(f"{name}.one_step_variance.{field} is infinite")
    _check_curve_sum(check, result, each, name)


def _check_curve_sum(check: Check, result: Result, each: TrajectoryScores, name: str) -> None:
    """Where all entries count, means over components and over steps may be taken in either order."""
    length, counts = len(each.rollout), each.rollout_counted.values()
    if all(count == length for count in counts):
        check.same(f"the mean of {name}.rollout", mean(each.rollout), mean(list(each.rollout_per_field.values())),
                   "its components give")  # fmt: skip
