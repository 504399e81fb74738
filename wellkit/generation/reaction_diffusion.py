"""The Gray-Scott equations on a periodic rectangle, by a spectral method.

    dA/dt = delta_A lap(A) - A B^2 + F (1 - A)
    dB/dt = delta_B lap(B) + A B^2 - (F + k) B

Fourier in space; in time the linear part exactly and the reaction by the fourth-order exponential Runge-Kutta scheme
ETDRK4 (Cox & Matthews 2002), its coefficients by contour integrals (Kassam & Trefethen, SIAM J. Sci. Comput. 26, 2005).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wellkit.errors import ArgumentError, DataValueError

Floats = NDArray[np.float64]
_CONTOUR_POINTS = 32


class GrayScott2D:
    """Two species in a periodic rectangle.

    Attributes:
        time: how far they have been advanced.
    """

    def __init__(
        self,
        a: Floats,
        b: Floats,
        *,
        feed: float,
        kill: float,
        lengths: Sequence[float],
        diffusivities: tuple[float, float] = (2e-5, 1e-5),
        dt: float = 1.0,
    ) -> None:
        """Start from concentrations.

        Args:
            a, b: (x, y), on points that divide the rectangle evenly, its upper ends left out.
            feed, kill: F and k.
            lengths: sides of the rectangle.
            diffusivities: delta_A, delta_B.
            dt: time step.

        Raises:
            ArgumentError: a shape or a number makes no sense.
        """
        if a.shape != b.shape or a.ndim != 2:
            raise ArgumentError(f"concentrations have shapes {a.shape} and {b.shape}; expected twice (x, y)")
        if not (dt > 0.0 and min(diffusivities) >= 0.0 and min(lengths) > 0.0):
            raise ArgumentError(
                f"dt={dt}, diffusivities {diffusivities} and lengths {tuple(lengths)} have to be positive"
            )
        self._shape = a.shape
        self._dt = dt
        self.time = 0.0
        kx = 2.0 * np.pi * np.fft.fftfreq(a.shape[0], lengths[0] / a.shape[0])
        ky = 2.0 * np.pi * np.fft.rfftfreq(a.shape[1], lengths[1] / a.shape[1])
        square = kx[:, None] ** 2 + ky[None, :] ** 2
        losses = (feed, feed + kill)
        linear = np.stack([-d * square - loss for d, loss in zip(diffusivities, losses, strict=True)])
        self._supply = feed * a.size  # F * 1, in the mean mode
        self._coefficients = _etdrk4(linear * dt, dt)
        self._modes = np.stack([np.fft.rfft2(a), np.fft.rfft2(b)])

    def concentrations(self) -> Floats:
        """A and B now: (2, x, y)."""
        return np.fft.irfft2(self._modes, s=self._shape, axes=(1, 2))

    def advance(self, steps: int) -> None:
        """Take `steps` time steps.

        Raises:
            DataValueError: the concentrations are no longer finite.
        """
        half, full, q, f1, f2, f3 = self._coefficients
        u = self._modes
        for _ in range(steps):
            nu = self._reaction(u)
            start = half * u
            a = start + q * nu
            na = self._reaction(a)
            nb = self._reaction(start + q * na)
            nc = self._reaction(half * a + q * (2.0 * nb - nu))
            u = full * u + f1 * nu + f2 * (na + nb) + f3 * nc
        if not np.isfinite(u).all():
            raise DataValueError(f"the concentrations are no longer finite after time {self.time:g}; use a smaller dt")
        self._modes = u
        self.time += steps * self._dt

    def _reaction(self, modes: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Fourier modes of (-A B^2 + F, A B^2)."""
        a, b = np.fft.irfft2(modes, s=self._shape, axes=(1, 2))
        converted = np.fft.rfft2(a * b * b)
        result = np.stack([-converted, converted])
        result[0, 0, 0] += self._supply
        return result


def _etdrk4(z: Floats, dt: float) -> tuple[Floats, ...]:
    """exp(z/2), exp(z) and the four weights of ETDRK4, for z = linear operator times dt, any shape.

    The weights are differences of nearly equal numbers where z is small; their means over a circle around z (equal
    to the value at its centre, since they are analytic) are not.
    """
    angles = np.pi * (np.arange(_CONTOUR_POINTS) + 0.5) / _CONTOUR_POINTS  # the upper half: z is real
    q, f1, f2, f3 = (np.zeros_like(z) for _ in range(4))
    for point in np.exp(1j * angles):
        w = z + point
        e, e_half = np.exp(w), np.exp(w / 2.0)
        q += np.real((e_half - 1.0) / w)
        f1 += np.real((-4.0 - w + e * (4.0 - 3.0 * w + w**2)) / w**3)
        f2 += np.real((4.0 + 2.0 * w + e * (-4.0 + 2.0 * w)) / w**3)
        f3 += np.real((-4.0 - 3.0 * w - w**2 + e * (4.0 - w)) / w**3)
    scale = dt / _CONTOUR_POINTS
    return np.exp(z / 2.0), np.exp(z), q * scale, f1 * scale, f2 * scale, f3 * scale
