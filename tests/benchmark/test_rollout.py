"""Rollouts: fed their own output, in pieces, from where the protocol says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from tests.benchmark.scoring import CPU, WELL, Exact, contend, frames, vrmse_by_hand
from tests.catalog.builders import write_card
from tests.train.advection import NAME, SPEED, make_advection
from wellkit.benchmark.evaluate import How, evaluate, evaluate_contender
from wellkit.benchmark.rollout import plan_rollouts, roll_out
from wellkit.errors import (
    WindowError,
)
from wellkit.train.data import Batches


@pytest.mark.parametrize("first_frame", [4, 6])
@pytest.mark.parametrize("memory", [1, 80_000, 2**30])
def test_rollouts_in_pieces_are_the_same(tmp_path: Path, memory: int, first_frame: int) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=13, steps_of_second_file=9)
    contender = contend(Exact(), base)
    plan = plan_rollouts(NAME, str(base), "test", n_steps_input=4, first_frame=first_frame, memory=memory)
    assert plan.lengths == tuple(n - first_frame for n in (13, 13, 9, 9))
    assert {1: 1, 80_000: 1, 2**30: 5}[memory] == plan.piece
    batches = Batches(plan.dataset, batch_size=1, workers=0, device=CPU)
    for trajectory, (file, within) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        true = frames(base, file=file)[within]
        pieces = list(roll_out(contender.forecasts, plan, batches, trajectory, split="test", allowed=(False,) * 3))
        for part in ("target", "prediction"):  # the exact solution: input and target fit together
            np.testing.assert_array_equal(np.concatenate([getattr(p, part) for p in pieces]), true[first_frame:])
        np.testing.assert_array_equal(pieces[0].initial, true[first_frame - 1])
        assert [piece.initial is None for piece in pieces[1:]] == [True] * (len(pieces) - 1)
        assert [piece.first_step for piece in pieces] == (
            np.cumsum([1, *(len(piece.target) for piece in pieces[:-1])]).tolist()
        )


def test_a_limit_cuts_rollouts_short(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=40, steps_of_second_file=9)
    plan = plan_rollouts(NAME, str(base), "test", n_steps_input=4, max_steps=10)
    assert (plan.lengths, plan.piece) == ((10,) * 2 + (5,) * 2, 5)
    result = evaluate_contender(contend(Exact(), base), How(rollout_steps=10))
    assert result.rollout.mean == 0.0
    assert result.rollout.entries == 3 * (2 * 10 + 2 * 5)
    assert result.rollout_limit == 10


def test_rollouts_feed_the_model_its_own_output(advection: Path) -> None:
    # Ten percent more each step: step s is 1.1^s times the last true frame.
    class Grows:
        def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
            return 1.1 * window[:, -1]

    result = evaluate_contender(contend(Grows(), advection, n_steps_input=2), How(protocol="wellkit-1"))
    y = frames(advection)
    grown = np.stack([1.1**s * y[:, 1] for s in range(1, 9)], axis=1)
    assert result.rollout.per_step == pytest.approx(vrmse_by_hand(grown, y[:, 2:]).mean(axis=(0, 2)).tolist(), rel=1e-5)


def test_trajectories_of_unequal_length_count_where_they_are(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=22, steps_of_second_file=9)
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu", protocol=WELL)
    assert result.rollout.trajectories_per_step == (4,) * 5 + (2,) * 13
    long, short = frames(base), frames(base, file=1)
    of_long = vrmse_by_hand(np.repeat(long[:, 3:4], 18, axis=1), long[:, 4:])
    of_short = vrmse_by_hand(np.repeat(short[:, 3:4], 5, axis=1), short[:, 4:])
    everything = np.concatenate([of_long.reshape(-1, 3), of_short.reshape(-1, 3)])
    assert result.rollout.mean == pytest.approx(everything.mean())
    assert result.rollout.per_step[4] == pytest.approx((of_long[:, 4].sum() + of_short[:, 4].sum()) / 12)
    assert result.rollout.per_step[17] == pytest.approx(of_long[:, 17].mean())
    assert result.rollout.windows == {}  # two trajectories end before step 12
    limited = evaluate("persistence", data=base, dataset=NAME, rollout_steps=3, device="cpu", protocol=WELL)
    assert limited.rollout.trajectories_per_step == (4,) * 3
    assert limited.rollout.per_step == pytest.approx(result.rollout.per_step[:3])
    assert limited.data.content_sha256 == result.data.content_sha256
    assert limited.comparable_id != result.comparable_id


def test_windows_of_rollout_steps_count_both_ends(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=34)
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu", protocol=WELL)
    y = frames(base)
    scores = vrmse_by_hand(np.repeat(y[:, 3:4], 30, axis=1), y[:, 4:])
    assert result.rollout.windows == {
        "6:12": pytest.approx(scores[:, 5:12].mean()),
        "13:30": pytest.approx(scores[:, 12:30].mean()),
    }


def test_valid_length_ends_with_the_first_step_beyond_the_threshold(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 2), steps=12)

    class FailsAfter:
        """The solution for so many calls, then a state far away, then the solution again."""

        def __init__(self) -> None:
            self.calls = 0

        def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
            self.calls += 1
            exact = window[:, -1].roll(SPEED, dims=(1, 2))
            return -20 * exact if self.calls == 1 + 4 else exact  # one call for all windows, then steps

    contender = contend(FailsAfter(), base)
    result = evaluate_contender(contender, How(batch_size=64))
    assert [scores.valid_length for scores in result.trajectories] == [3, 8]
    assert result.rollout.valid_length is not None
    assert (result.rollout.valid_length.mean, result.rollout.valid_length.never_failed) == (5.5, 1)


def test_walrus_style_begins_at_frame_17(tmp_path: Path) -> None:
    base = make_advection(tmp_path, trajectories=(1, 1, 3), steps=45)
    result = evaluate("persistence", data=base, dataset=NAME, device="cpu", protocol="walrus-style-1")
    y = frames(base)
    scores = vrmse_by_hand(np.repeat(y[:, 16:17], 28, axis=1), y[:, 17:]).mean(axis=2)
    assert result.rollout.first_frame == 17
    assert result.rollout.windows == {
        "1:20": pytest.approx(np.median(scores[:, :20].mean(axis=1))),
        "1:10": pytest.approx(np.median(scores[:, :10].mean(axis=1))),
    }
    assert set(result.rollout.left_out) == {"21:60", "11:30"}
    one_step = vrmse_by_hand(y[:, 3:44], y[:, 4:]).mean(axis=(1, 2))
    assert result.headline == pytest.approx(np.median(one_step))
    short = make_advection(tmp_path / "short", trajectories=(1, 1, 1), steps=17)
    with pytest.raises(WindowError, match=r"from frame 17 on.*17 frames \(0 to 16\)"):
        evaluate("persistence", data=short, dataset=NAME, device="cpu", protocol="walrus-style-1")


def test_totals_that_a_card_calls_conserved_are_watched(
    advection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = write_card(
        tmp_path / "card.yaml",
        name=NAME,
        fields=[{"name": "tracer"}, {"name": "velocity", "order": 1}],
        conserved=[{"quantity": "tracer mass", "field": "tracer", "weights": "cells", "note": "carried around a box"}],
    )
    monkeypatch.setenv("WELLKIT_CATALOG", str(card))

    class Loses:
        """Two percent of everything each step."""

        def predict(self, window: Tensor, constants: Tensor | None) -> Tensor:
            return 0.98 * window[:, -1]

    (drift,) = evaluate_contender(contend(Loses(), advection)).rollout.drift
    assert (drift.quantity, drift.component) == ("tracer mass", "tracer")
    lost = 1 - 0.98 ** np.arange(1, 7)
    assert drift.per_step == pytest.approx(lost.tolist(), rel=1e-4)  # the tracer is positive: mean |q| is the mean of q
    assert drift.mean == pytest.approx(lost[-1], rel=1e-4)
    assert drift.target < 1e-6
    assert evaluate("mean", data=advection, dataset=NAME, device="cpu", protocol=WELL).rollout.drift == ()
