"""Pictures: written whole, of the right fields and steps, in one to three dimensions."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from tests.train.advection import NAME, make_advection
from wellkit.benchmark.contenders import prepare
from wellkit.benchmark.examples import RolloutExample, rollout_example
from wellkit.benchmark.panels import Scale, drawable, map_layout, save_whole
from wellkit.benchmark.pictures import animate_rollout, check_pictures, draw_rollout
from wellkit.errors import ArgumentError, StorageError

CPU = torch.device("cpu")


def make_example(base: Path, trajectory: int = 0, max_steps: int | None = None) -> RolloutExample:
    contender = prepare("persistence", data=base, dataset=NAME, device=CPU)
    return rollout_example(contender, trajectory=trajectory, max_steps=max_steps)


def test_an_example_holds_the_rollout(advection: Path) -> None:
    example = make_example(advection, trajectory=1)
    assert example.truth.shape == example.prediction.shape == (6, 16, 16, 3)
    np.testing.assert_array_equal(example.prediction[5], example.prediction[0])
    np.testing.assert_allclose(example.times, 0.5 * np.arange(4, 10))
    np.testing.assert_allclose(example.coordinates[0], np.arange(16) / 16)
    assert example.names == ("tracer", "velocity_x", "velocity_y")
    assert example.vrmse.shape == (6, 3)
    assert make_example(advection, max_steps=2).truth.shape[0] == 2
    with pytest.raises(ArgumentError, match=r"trajectory 2 is out of range.*has 2, from 0"):
        make_example(advection, trajectory=2)


@pytest.mark.parametrize("resolution", [(16,), (8, 32), (8, 8, 6)])
def test_pictures_in_every_dimension(tmp_path: Path, resolution: tuple[int, ...]) -> None:
    base = make_advection(tmp_path, resolution=resolution, trajectories=(1, 1, 1), steps=8)
    example = make_example(base)
    assert example.truth.ndim == 2 + min(len(resolution), 2)
    with Image.open(draw_rollout(example, tmp_path / "rollout.png", fields=["tracer"])) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
    with Image.open(animate_rollout(example, tmp_path / "rollout.gif", fields=["tracer"])) as picture:
        frames = [np.asarray(frame.convert("RGB")).copy() for frame in ImageSequence.Iterator(picture)]
    assert len(frames) == 4
    assert (frames[0] != frames[3]).mean() > 0.01


def test_long_rollouts_skip_frames(advection: Path, tmp_path: Path) -> None:
    path = animate_rollout(make_example(advection), tmp_path / "few.gif", fields=["tracer"], max_frames=3)
    with Image.open(path) as picture:
        assert len(list(ImageSequence.Iterator(picture))) == 3


def test_drawing_touches_no_state_of_the_callers(advection: Path, tmp_path: Path) -> None:
    # pyplot would choose a backend for the whole process.
    code = (
        "import sys; from pathlib import Path; import tests.benchmark.test_pictures as t; "
        f"t.draw_rollout(t.make_example(Path({str(advection)!r})), {str(tmp_path / 'a.png')!r}, fields=['tracer']); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_predictions_that_are_not_finite_can_be_drawn(advection: Path, tmp_path: Path) -> None:
    example = make_example(advection)
    prediction = example.prediction.copy()
    prediction[2:, :8] = np.nan
    prediction[3:] = np.inf
    broken = dataclasses.replace(example, prediction=prediction)
    draw_rollout(broken, tmp_path / "broken.png", fields=["tracer"], steps=[1, 3, 6])
    animate_rollout(broken, tmp_path / "broken.gif", fields=["tracer"])


def test_scales_follow_the_truth() -> None:
    x = np.linspace(0, 1, 1000)
    positive = Scale(1 + x, 5 + x)
    assert positive.map == "viridis"
    assert (positive.norm.vmin, positive.norm.vmax) == pytest.approx((1.002, 1.998))
    assert positive.error_norm.vmin == -positive.error_norm.vmax == pytest.approx(-4.0)
    signed = Scale(2 * x - 1, x)
    assert signed.map == "RdBu_r"
    assert signed.norm.vmin == -signed.norm.vmax
    assert type(Scale(10 ** (3 * x), x).norm).__name__ == "LogNorm"
    uniform = Scale(np.full(10, 3.0), np.full(10, 3.0))
    assert uniform.norm.vmin < uniform.norm.vmax
    assert uniform.error_norm.vmin < uniform.error_norm.vmax


def test_negative_values_on_a_logarithmic_scale_are_not_taken_for_missing() -> None:
    truth = np.geomspace(1, 100, 50)
    norm = Scale(truth, truth).norm
    shown = drawable(np.array([-5.0, 0.0, 10.0, np.nan]), norm)
    assert shown.mask.tolist() == [False, False, False, True]
    assert norm(shown)[:2].tolist() == [0.0, 0.0]


def test_the_longer_side_lies_flat(advection: Path) -> None:
    example = make_example(advection)
    tall = dataclasses.replace(example, coordinates=(np.linspace(0, 1, 16), np.linspace(0, 3, 16)))
    upright, extent, ratio = map_layout(tall)
    assert upright
    assert extent[1] > extent[3]
    assert ratio == pytest.approx(1 / 3)
    wide = dataclasses.replace(example, coordinates=(np.linspace(0, 3, 16), np.linspace(0, 1, 16)))
    assert map_layout(wide)[0] is False


def test_bad_requests_are_refused(advection: Path, tmp_path: Path) -> None:
    example = make_example(advection)
    with pytest.raises(ArgumentError, match=r"no field 'tracr'.*Did you mean tracer"):
        draw_rollout(example, tmp_path / "a.png", fields=["tracr"])
    with pytest.raises(ArgumentError, match=r"no step 7 .* steps 1 to 6"):
        draw_rollout(example, tmp_path / "a.png", steps=[7])
    with pytest.raises(ArgumentError, match=r"must end in \.png"):
        draw_rollout(example, tmp_path / "a.jpg")
    with pytest.raises(ArgumentError, match=r"must end in \.gif"):
        check_pictures(gif="a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        draw_rollout(example, tmp_path / "file" / "a.png", fields=["tracer"], steps=[1])
    with pytest.raises(StorageError, match=r"cannot write .*a part of the path is a file"):
        check_pictures(png=tmp_path / "file" / "a.png")
    assert list(tmp_path.glob("*.png")) == []


def test_a_full_disk_leaves_no_part_of_a_picture(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        file.write(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="No space left on device"):
        save_whole(tmp_path / "a.png", fill)
    assert list(tmp_path.iterdir()) == []
