"""Compiled kernels of the 2D compressible Euler solver; `wellkit.generation.euler` explains and wraps them.

The state is one array (4, x, y) of density, momentum along x, momentum along y and total energy density. Importing
this module imports numba.

Both sweeps copy pieces of `TILE` cells into one scratch array whose rows lie a compile-time constant apart, and
compute there, without branches: only so does the compiler know that rows do not overlap and turn the loops into
vector code (about four times faster).
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from wellkit.generation.compiling import inlined, kernel

TILE = 64
_ROW = TILE + 8  # cells of a piece with ghosts, padded
PERIODIC, OPEN = 0, 1

# Rows of the scratch array. Cell values of three neighbouring rows of cells (a, b, c), the states at both faces of a
# cell (low, high), the fluxes through two neighbouring faces; four variables each.
_A, _B, _C = 0 * _ROW, 4 * _ROW, 8 * _ROW
_LOW, _HIGH, _BEFORE = 12 * _ROW, 16 * _ROW, 20 * _ROW
_FLUX, _OLD = 24 * _ROW, 28 * _ROW
SCRATCH = 32 * _ROW

_TRUST = 1e-3  # a predicted face state below this part of its cell's density or pressure is not used


@inlined
def _slope(a, b, c):  # type: ignore[no-untyped-def]
    """Monotonized central difference over a cell (van Leer 1977)."""
    below = b - a
    above = c - b
    size = min(2.0 * min(abs(below), abs(above)), 0.5 * abs(below + above))
    signed = size if below > 0.0 else -size
    return signed if below * above > 0.0 else 0.0


@inlined
def _predict(r, u, v, p, dr, du, dv, dp, half, gamma):  # type: ignore[no-untyped-def]
    """Cell values half a time step later (Hancock's predictor in primitive variables), and slopes to use.

    Where a face state would lose its positivity, the cell falls back to first order.
    """
    r1 = r - half * (u * dr + r * du)
    u1 = u - half * (u * du + dp / r)
    v1 = v - half * (u * dv)
    p1 = p - half * (u * dp + gamma * p * du)
    good = (r1 - 0.5 * abs(dr) > _TRUST * r) & (p1 - 0.5 * abs(dp) > _TRUST * p)
    keep = 0.5 if good else 0.0
    return (
        r1 if good else r,
        u1 if good else u,
        v1 if good else v,
        p1 if good else p,
        keep * dr,
        keep * du,
        keep * dv,
        keep * dp,
    )


@inlined
def _hllc(rl, ul, vl, pl, rr, ur, vr, pr, gamma):  # type: ignore[no-untyped-def]
    """Flux of (density, normal momentum, transverse momentum, energy) of the HLLC solver (Toro, ch. 10).

    Wave speeds after Davis (1988).
    """
    inverse = gamma / (rl * rr)  # divisions and roots are what this function costs
    ccl = pl * rr * inverse
    ccr = pr * rl * inverse
    cl = sqrt(ccl)
    cr = sqrt(ccr)
    sl = min(ul - cl, ur - cr)
    sr = max(ul + cl, ur + cr)
    ml = rl * (sl - ul)
    mr = rr * (sr - ur)
    contact = (pr - pl + ul * ml - ur * mr) / (ml - mr)
    left = contact >= 0.0
    r = rl if left else rr
    u = ul if left else ur
    v = vl if left else vr
    p = pl if left else pr
    s = sl if left else sr
    m = ml if left else mr
    wave = min(s, 0.0) if left else max(s, 0.0)
    inverse = 1.0 / (m * (s - contact))
    star = m * m * inverse
    energy = p * (1.0 / (gamma - 1.0)) + 0.5 * r * (u * u + v * v)
    specific = (ccl if left else ccr) * (1.0 / (gamma * (gamma - 1.0))) + 0.5 * (u * u + v * v)
    lift = (contact - u) * (contact + p * (s - contact) * inverse)
    mass = r * u + wave * (star - r)
    return (
        mass,
        r * u * u + p + wave * (star * contact - r * u),
        v * mass,
        (energy + p) * u + wave * (star * (specific + lift) - energy),
    )


@inlined
def _faces(s, n, a, b, c, half, gamma, slopes):  # type: ignore[no-untyped-def]
    """States at the low and high face of `n` cells from the values at rows a (below), b, c (above)."""
    for j in range(n):
        dr = slopes * _slope(s[a + j], s[b + j], s[c + j])
        du = slopes * _slope(s[a + _ROW + j], s[b + _ROW + j], s[c + _ROW + j])
        dv = slopes * _slope(s[a + 2 * _ROW + j], s[b + 2 * _ROW + j], s[c + 2 * _ROW + j])
        dp = slopes * _slope(s[a + 3 * _ROW + j], s[b + 3 * _ROW + j], s[c + 3 * _ROW + j])
        r, u, v, p, dr, du, dv, dp = _predict(
            s[b + j], s[b + _ROW + j], s[b + 2 * _ROW + j], s[b + 3 * _ROW + j], dr, du, dv, dp, half, gamma
        )
        s[_LOW + j] = r - dr
        s[_LOW + _ROW + j] = u - du
        s[_LOW + 2 * _ROW + j] = v - dv
        s[_LOW + 3 * _ROW + j] = p - dp
        s[_HIGH + j] = r + dr
        s[_HIGH + _ROW + j] = u + du
        s[_HIGH + 2 * _ROW + j] = v + dv
        s[_HIGH + 3 * _ROW + j] = p + dp


@inlined
def _fluxes(s, n, low, high, gamma):  # type: ignore[no-untyped-def]
    """Fluxes through `n` faces between the states at rows `low` and `high`."""
    for j in range(n):
        mass, normal, transverse, energy = _hllc(
            s[low + j],
            s[low + _ROW + j],
            s[low + 2 * _ROW + j],
            s[low + 3 * _ROW + j],
            s[high + j],
            s[high + _ROW + j],
            s[high + 2 * _ROW + j],
            s[high + 3 * _ROW + j],
            gamma,
        )
        s[_FLUX + j] = mass
        s[_FLUX + _ROW + j] = normal
        s[_FLUX + 2 * _ROW + j] = transverse
        s[_FLUX + 3 * _ROW + j] = energy


@inlined
def _to_primitive(s, at, n, gamma):  # type: ignore[no-untyped-def]
    """Turn `n` conserved states (normal and transverse momentum) into density, velocities, pressure, in place."""
    for j in range(n):
        r = s[at + j]
        inverse = 1.0 / r
        u = s[at + _ROW + j] * inverse
        v = s[at + 2 * _ROW + j] * inverse
        s[at + 3 * _ROW + j] = (gamma - 1.0) * (s[at + 3 * _ROW + j] - 0.5 * r * (u * u + v * v))
        s[at + _ROW + j] = u
        s[at + 2 * _ROW + j] = v


@kernel
def sweep_x(state, scratch, edge, through, ratio, gamma, boundary, slopes):  # type: ignore[no-untyped-def]
    """Advance `state` by the fluxes along x, in place.

    Args:
        state: float64 (4, x, y).
        scratch: float64 (SCRATCH,).
        edge: float64 (8, TILE): room for the first two rows.
        through: float64 (2, 4): what has passed the lower and the upper boundary, in cell amounts; added to.
        ratio: time step / cell size.
        boundary: PERIODIC or OPEN.
        slopes: 1 for second order, 0 for first order.
    """
    nx, ny = state.shape[1], state.shape[2]
    s = scratch
    for start in range(0, ny, TILE):
        n = min(TILE, ny - start)
        for row in range(2):  # rows a periodic boundary needs again when they have been advanced already
            for k in range(4):
                for j in range(n):
                    edge[4 * row + k, j] = state[k, min(row, nx - 1), start + j]
        for i in range(-2, nx + 2):
            # Shift the window: c becomes b, b becomes a; then row i becomes c.
            for j in range(8 * _ROW):
                s[_A + j] = s[_B + j]
            if boundary == PERIODIC and i >= nx:
                for k in range(4):
                    for j in range(n):
                        s[_C + k * _ROW + j] = edge[4 * ((i - nx) % nx) + k, j]
            else:
                row = i % nx if boundary == PERIODIC else min(max(i, 0), nx - 1)
                for k in range(4):
                    for j in range(n):
                        s[_C + k * _ROW + j] = state[k, row, start + j]
            _to_primitive(s, _C, n, gamma)
            if i < 0:
                continue
            # Faces of row i - 1, then the flux between rows i - 2 and i - 1, then row i - 2 is done.
            for j in range(4 * _ROW):
                s[_BEFORE + j] = s[_HIGH + j]
            for j in range(4 * _ROW):
                s[_OLD + j] = s[_FLUX + j]
            _faces(s, n, _A, _B, _C, 0.5 * ratio, gamma, slopes)
            if i < 1:
                continue
            _fluxes(s, n, _BEFORE, _LOW, gamma)
            if i == 1 or i == nx + 1:
                side = 0 if i == 1 else 1
                for k in range(4):
                    for j in range(n):
                        through[side, k] += ratio * s[_FLUX + k * _ROW + j]
            if i >= 2:
                for k in range(4):
                    for j in range(n):
                        state[k, i - 2, start + j] -= ratio * (s[_FLUX + k * _ROW + j] - s[_OLD + k * _ROW + j])


@kernel
def sweep_y(state, scratch, row, through, ratio, gamma, boundary, slopes):  # type: ignore[no-untyped-def]
    """Advance `state` by the fluxes along y, in place; as `sweep_x`, with `row` float64 (4, y + 4)."""
    nx, ny = state.shape[1], state.shape[2]
    s = scratch
    for i in range(nx):
        for k in range(4):
            # The normal momentum comes second.
            source = 3 - k if k == 1 or k == 2 else k
            for j in range(ny):
                row[k, j + 2] = state[source, i, j]
            for ghost in range(2):
                low = (ghost - 2) % ny if boundary == PERIODIC else 0
                high = ghost % ny if boundary == PERIODIC else ny - 1
                row[k, ghost] = state[source, i, low]
                row[k, ny + 2 + ghost] = state[source, i, high]
        for start in range(0, ny, TILE):
            n = min(TILE, ny - start)
            # Cells start - 2 ... start + n + 1, then the same shifted: reading them at an offset would be slower,
            # since loads that straddle fresh stores have to wait for them.
            for k in range(4):
                for j in range(n + 4):
                    s[_C + k * _ROW + j] = row[k, start + j]
            _to_primitive(s, _C, n + 4, gamma)
            for j in range(4 * _ROW):
                s[_A + j] = s[_C + j]
            for j in range(4 * _ROW - 1):
                s[_B + j] = s[_C + j + 1]
            for j in range(4 * _ROW - 2):
                s[_C + j] = s[_C + j + 2]
            _faces(s, n + 2, _A, _B, _C, 0.5 * ratio, gamma, slopes)  # of cells start - 1 ... start + n
            for j in range(4 * _ROW - 1):
                s[_LOW + j] = s[_LOW + j + 1]
            _fluxes(s, n + 1, _HIGH, _LOW, gamma)  # face j is below cell start + j
            for k in range(4):
                target = 3 - k if k == 1 or k == 2 else k
                for j in range(n):
                    state[target, i, start + j] -= ratio * (s[_FLUX + k * _ROW + j + 1] - s[_FLUX + k * _ROW + j])
                if start == 0:
                    through[0, target] += ratio * s[_FLUX + k * _ROW]
                if start + n == ny:
                    through[1, target] += ratio * s[_FLUX + k * _ROW + n]


@kernel
def fastest_rate(state, dx, dy, gamma):  # type: ignore[no-untyped-def]
    """Largest (|velocity| + sound speed) / cell size along either axis; NaN unless density and pressure are above 0."""
    worst = 0.0
    lost = False
    for i in range(state.shape[1]):
        for j in range(state.shape[2]):
            r = state[0, i, j]
            u = abs(state[1, i, j]) / r
            v = abs(state[2, i, j]) / r
            p = (gamma - 1.0) * (state[3, i, j] - 0.5 * r * (u * u + v * v))
            c = sqrt(gamma * p / r)
            rate = max((u + c) / dx, (v + c) / dy)
            worst = rate if rate > worst else worst
            lost |= not (r > 0.0 and p > 0.0 and rate < np.inf)  # NaN too, which no comparison would carry along
    return np.nan if lost else worst
