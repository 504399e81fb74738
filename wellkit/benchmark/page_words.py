"""What the numbers of a leaderboard's page are, in words: derived from the protocol, never written beside it."""

from __future__ import annotations

from wellkit.benchmark.standings import Row, Table
from wellkit.schemas.protocol import Protocol

STATUS = {
    "recomputed": "The scores were computed again, from predictions, by whoever keeps this board.",
    "self-reported": "The scores are those that were sent in; nobody computed them again for this board. Not ranked.",
    "baseline": "Computed by wellkit; needs no training. There to compare with, not ranked.",
    "reference": "A published figure, copied; not scored under this protocol's code. Never ranked.",
}


def why_unranked(row: Row) -> str:
    """The reason for a dash in place of a rank."""
    return {
        "recomputed": "no rank: it cannot be placed among the others",
        "self-reported": "no rank: self-reported, and only recomputed rows are ranked",
        "baseline": "no rank: a baseline",
        "reference": "no rank: a published figure",
    }[row.kind]


def entry(protocol: Protocol) -> str:
    """The definition every score rests on."""
    unit = (
        "in the squared unit of the field as stored"
        if protocol.eps_of == "unit"
        else "times the mean spatial variance of the component over all scored one-step targets of the split"
    )
    if protocol.flat == "scored":
        flat = f"Flat entries (variance under {protocol.flat_below:g} eps) are scored like all others."
    else:
        flat = (
            f"Flat entries (variance under {protocol.flat_below:g} eps) are left out of means and medians, and "
            "counted; pooled figures hold them."
        )
    return (
        "An entry is one predicted frame of one component. Its VRMSE is sqrt(mean squared error over the grid / "
        f"(variance of the target over the grid, unbiased, + eps)), eps = {protocol.eps:g} {unit}. {flat} A prediction "
        "with NaN or infinity scores infinity; nothing is clipped or replaced. Lower is better."
    )


def _over(protocol: Protocol) -> str:
    if protocol.headline == "mean":
        return "the mean over components of their means over entries"
    return "the median over trajectories of their means over entries"


def definitions(table: Table) -> dict[str, str]:
    """By key of a column: what its numbers are."""
    protocol = table.protocol
    result = next((result for row in table.rows for result in row.results), None)
    steps_in = "the frames before it" if result is None else f"the {result.model.n_steps_input} frames before it"
    first = "" if result is None else f" (frame {result.rollout.first_frame} of the trajectory, from 0)"
    threshold = protocol.valid_length_threshold
    words = {
        "rank": "1 + the number of recomputed rows that are better beyond doubt: the 95 % interval of the paired "
        "differences of the trajectories’ one-step scores lies on one side; with fewer than 10 trajectories, every one "
        "of them says so. Rows that cannot be told apart may have the same rank (=).",
        "headline": f"One-step VRMSE, the figure that ranks: {_over(protocol)}, over every window of the split; a "
        f"frame is predicted from {steps_in}. {entry(protocol)}",
        "seeds": "The headline score of every seed that was trained, and the spread: the largest less the smallest. "
        "Where there are several, the headline is their mean.",
        "ratio": "Persistence’s one-step score over this row’s, mean over trajectories: above 1 is better than "
        "persistence. The interval (95 %) is of the mean difference of the scores, row less persistence, paired by "
        "trajectory and drawn within groups of equal parameters: negative is better.",
        "behind": "The first step of the rollout at which the row’s score is above persistence’s.",
        "valid": f"Valid rollout length: steps until the VRMSE, mean over components, first exceeds "
        f"{threshold or 1:g}; mean over trajectories. Those that are valid to their end count with their length.",
        "parameters": "Numbers that were trained.",
        "training": "Wall-clock time of the training, mean over seeds.",
        "status": "Who computed the scores.",
    }
    for window in protocol.windows:
        a, b = window
        words[f"window {a}:{b}"] = (
            f"Rollout VRMSE over steps {a} to {b}, both counted: {_over(protocol)}. The model is fed its own output; "
            f"step 1 is the first prediction{first}. A window has a figure only where every trajectory is that long. "
            f"{entry(protocol)}"
        )
    for band in ("low", "middle", "high"):
        words[f"band {band}"] = (
            f"Spectral error one step ahead in the {band} one of three bands of wavenumbers, over all windows: "
            "sqrt(mean squared error in the band / (mean energy of the target’s fluctuations in it + eps)), mean over "
            "components. Lower is better."
        )
    return words
