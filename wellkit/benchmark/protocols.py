"""The protocols there are. Each is frozen: who changes a value gives it another name.

Common to all:

1. Fields in physical units as they are stored, float32 on both sides. An entry is one predicted frame and one
   component: its mean squared error over the grid points, and the variance over the points of the target,
   unbiased (over N - 1), both in float64, each frame by itself. VRMSE = sqrt(error / (variance + eps)).
2. One step: every window of n_steps_input + 1 consecutive frames of every trajectory, none left out, whatever
   the batch size.
3. Rollouts: from n_steps_input true frames on, the model is fed its own output to the end of the trajectory, one
   trajectory at a time. Step 1 is the first prediction. A window a:b is steps a to b, both counted, and has a figure
   only where every trajectory is that long.
4. A prediction with NaN or infinity at a scored point scores infinity in its frame and component, is counted, and
   makes every mean it is part of infinite. Nothing is clipped, replaced or dropped.
5. Points whose target is NaN, where the dataset's card says that NaN means outside the domain, are left out of the
   sums; any other NaN or infinity in the data is an error.
6. An entry is flat where its target's variance is under `flat_below` eps: there eps decides the score.
"""

from __future__ import annotations

from wellkit.errors import ArgumentError, did_you_mean
from wellkit.schemas.protocol import Protocol

DEFAULT_PROTOCOL = "wellkit-1"

WELL_2024 = Protocol(
    name="well-2024",
    summary="The Well's benchmark as its paper describes it: 4 frames in, 1 out, mean VRMSE of every window; "
    "rollouts from the first frame, steps 6 to 12 and 13 to 30",
    eps=1e-7,
    eps_of="unit",
    flat_below=100.0,
    flat="scored",
    n_steps_input=4,
    rollout_from=None,
    windows=((6, 12), (13, 30)),
    headline="mean",
    comparable_with="the paper's tables (arXiv 2412.00568) as far as those were made as described, which they were "
    "not: the released code drops the last windows of a split, cuts other rollout windows and replaces NaN by 0",
)

WALRUS_STYLE_1 = Protocol(
    name="walrus-style-1",
    summary="Rollouts from frame 17 on, steps 1 to 20 and 21 to 60, median over trajectories: our reading of how "
    "Walrus (arXiv 2511.15684) is scored",
    eps=1e-7,
    eps_of="unit",
    flat_below=100.0,
    flat="scored",
    rollout_from=17,
    windows=((1, 20), (21, 60), (1, 10), (11, 30)),
    headline="median of trajectories",
    open_points=(
        "whether frame 17 is the first predicted or the last true one; here it is the first predicted, counted from 0",
        "what the median is over (samples, trajectories, steps); here trajectories, of means over steps and components",
        "whether one-step scores are of all windows; here they are",
        "the paper scores fields it has transformed (log10 of some densities, temperatures and pressures) and leaves "
        "one density out; here fields are scored as stored, all of them",
        "the paper gives models 6 input frames in 2D and 3 in 3D; here a model sees as many as it takes, up to 17",
        "the paper predicts with strides of 1 to 5 in training; here every step is one stored frame",
        "eps of its VRMSE is not stated; here 1e-7",
    ),
    comparable_with="nothing published: not with the tables of the Walrus paper",
)

WELLKIT_1 = Protocol(
    name="wellkit-1",
    summary="Mean, median and pooled VRMSE that do not depend on units, spectral error in three bands, valid rollout "
    "length, conservation, every trajectory by itself",
    eps=1e-7,
    eps_of="variance",
    flat_below=100.0,
    flat="left out",
    rollout_from=None,
    windows=((1, 5), (6, 12), (13, 30), (31, 60)),
    headline="mean",
    valid_length_threshold=1.0,
    spectral=True,
    conservation=True,
    comparable_with="results of this protocol alone",
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (WELL_2024, WALRUS_STYLE_1, WELLKIT_1)}


def get_protocol(name: str) -> Protocol:
    """A protocol by name.

    Raises:
        ArgumentError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise ArgumentError(
            f"protocol {name!r} is unknown here; choose one of {', '.join(PROTOCOLS)}.{did_you_mean(name, PROTOCOLS)}"
        )
    return PROTOCOLS[name]
