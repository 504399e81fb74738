"""The compiled time loop: sweeps along both axes, cooling between them, and steps taken back that went wrong."""

from __future__ import annotations

import numpy as np

from wellkit.generation.compiling import kernel
from wellkit.generation.cooling_kernels import cool
from wellkit.generation.euler_kernels import fastest_rate, sweep_x, sweep_y

_SMALLEST = 1.0 / 64.0  # of the Courant number asked for: below it a state counts as lost
_FIRST_ORDER = 1.0 / 8.0  # of it: below it slopes are left out


@kernel
def advance(  # type: ignore[no-untyped-def]
    state, kept, scratch, edge, row, through, span, cfl, dx, dy, gamma, boundary_x, boundary_y, t_cool, cold, hot
):
    """Advance `state` by `span` in pairs of steps: x y, cooling for both, y x (Strang).

    The scheme keeps density and pressure at faces positive, which keeps those of cells positive but for rare cases
    (strong rarefaction where a cell has cooled at the same time). A pair that fails is taken back and repeated with
    half the step, in the end at first order, which conserves as every pair does.

    Args:
        state: float64 (4, x, y).
        kept: room of the same shape.
        scratch, edge, row, through: as for the sweeps, `through` for both axes (2, 2, 4).
        t_cool, cold, hot: the cooling curve; t_cool infinite for none.

    Returns:
        Steps (-1 if the state is lost; it is then the last good one), energy radiated summed over cells, pairs that
        had to be repeated.
    """
    temperature = np.empty((2, state.shape[2]))
    through_kept = np.empty_like(through)
    left, steps, radiated, repeated, part = span, 0, 0.0, 0, 1.0
    rate = fastest_rate(state, dx, dy, gamma)
    if not rate < np.inf:
        return -1, radiated, repeated
    while left > 0.0:
        # A pair no longer than the shortest cooling time: else gas would cool for good before it notices.
        pairs = np.ceil(left * max(rate / (2.0 * cfl * part), 1.0 / t_cool))
        dt = left / (2.0 * pairs)
        slopes = 1.0 if part > _FIRST_ORDER else 0.0
        kept[:] = state
        through_kept[:] = through
        sweep_x(state, scratch, edge, through[0], dt / dx, gamma, boundary_x, slopes)
        sweep_y(state, scratch, row, through[1], dt / dy, gamma, boundary_y, slopes)
        lost = cool(state, temperature, 2.0 * dt / t_cool, gamma, cold, hot) if t_cool < np.inf else 0.0
        sweep_y(state, scratch, row, through[1], dt / dy, gamma, boundary_y, slopes)
        sweep_x(state, scratch, edge, through[0], dt / dx, gamma, boundary_x, slopes)
        rate_after = fastest_rate(state, dx, dy, gamma)
        if not rate_after < np.inf:
            state[:] = kept
            through[:] = through_kept
            part *= 0.5
            if part < _SMALLEST:
                return -1, radiated, repeated
            repeated += 1
            continue
        rate, part = rate_after, 1.0
        radiated += lost
        steps += 2
        left = left - 2.0 * dt if pairs > 1.0 else 0.0
    return steps, radiated, repeated
