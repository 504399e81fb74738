"""Point-by-point measures: squared and absolute errors, normalized errors, largest error, correlation.

Common to all of them:

Shapes: `prediction` and `target` are (..., space..., component) of one shape; nothing is broadcast. The
    result is (..., component). A measure of N grid points is a mean, variance or maximum over those N points.
Precision: NumPy input is differenced and summed in float64 whatever its dtype, and the result is float64:
    squares of float32 numbers summed over 10^6 points would lose digits. Torch input keeps its dtype
    (float16, bfloat16 and integers are raised to float32) and device and stays differentiable; hand in
    float64 tensors for float64 sums.
Not-a-number: nothing is masked or replaced. A NaN in the prediction or target of a component makes that
    component's value NaN; an infinite prediction makes it infinite or NaN. Other components are not touched.
compat: None, or "the_well" for the values of `the_well` 1.2 (to rounding), so that figures made with it can
    be reproduced. Where the two definitions differ, the function says how.

All of them raise ScoreError where the shapes differ, have no component axis, or are too small, where the
arguments belong to different frameworks, or where `compat` is unknown.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

import numpy as np

from wellkit.errors import ScoreError
from wellkit.frameworks import Array, framework_of

Compat = Literal["the_well"] | None
DEFAULT_EPS = 1e-7


class _NumPy:
    """Reductions over the space axes in float64."""

    @staticmethod
    def prepare(array: Array) -> Array:
        array = np.asarray(array)
        if array.dtype.kind not in "fiub":
            raise ScoreError(f"measures need real numbers, found an array of dtype {array.dtype}")
        return array.astype(np.float64, copy=False)

    @staticmethod
    def mean(array: Array, axes: tuple[int, ...]) -> Array:
        return np.mean(array, axis=axes)

    @staticmethod
    def centred(array: Array, axes: tuple[int, ...]) -> Array:
        return array - np.mean(array, axis=axes, keepdims=True)

    @staticmethod
    def maximum(array: Array, axes: tuple[int, ...]) -> Array:
        return np.max(array, axis=axes)

    @staticmethod
    def sqrt(array: Array) -> Array:
        return np.sqrt(array)


class _Torch:
    """The same reductions, in the tensors' own precision and differentiable."""

    @staticmethod
    def prepare(array: Array) -> Array:
        torch = importlib.import_module("torch")
        if array.is_complex():
            raise ScoreError(f"measures need real numbers, found a tensor of dtype {array.dtype}")
        return array if array.dtype in (torch.float32, torch.float64) else array.to(torch.float32)

    @staticmethod
    def mean(array: Array, axes: tuple[int, ...]) -> Array:
        return array.mean(dim=axes)

    @staticmethod
    def centred(array: Array, axes: tuple[int, ...]) -> Array:
        return array - array.mean(dim=axes, keepdim=True)

    @staticmethod
    def maximum(array: Array, axes: tuple[int, ...]) -> Array:
        return array.amax(dim=axes)

    @staticmethod
    def sqrt(array: Array) -> Array:
        return array.sqrt()


class _Pair:
    """A checked prediction and target, and the reductions of their framework."""

    def __init__(self, prediction: Array, target: Array, n_spatial_dims: int, compat: Compat) -> None:
        if compat not in (None, "the_well"):
            raise ScoreError(f"compat={compat!r} is unknown; use None or 'the_well'")
        frameworks = framework_of(prediction), framework_of(target)
        if frameworks[0] != frameworks[1]:
            raise ScoreError(
                f"prediction is a {frameworks[0]} array, target a {frameworks[1]} array; convert one of them"
            )
        self.back: Any = lambda result: result
        if frameworks[0] == "jax":  # computed on the host in float64, returned as JAX
            jnp = importlib.import_module("jax.numpy")
            self.back, prediction, target = jnp.asarray, np.asarray(prediction), np.asarray(target)
        elif frameworks[0] == "numpy":
            prediction, target = np.asarray(prediction), np.asarray(target)
        if tuple(prediction.shape) != tuple(target.shape):
            raise ScoreError(
                f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}; "
                "they must be equal (nothing is broadcast)"
            )
        if n_spatial_dims < 1 or prediction.ndim < n_spatial_dims + 1:
            raise ScoreError(
                f"shape {tuple(prediction.shape)} cannot hold n_spatial_dims={n_spatial_dims} space axes "
                "and a component axis at the end"
            )
        self.axes = tuple(range(-n_spatial_dims - 1, -1))
        self.points = int(np.prod([prediction.shape[axis] for axis in self.axes]))
        if self.points == 0:
            raise ScoreError(f"shape {tuple(prediction.shape)} holds no grid points")
        self.ops: type[_NumPy] | type[_Torch] = _Torch if frameworks[0] == "torch" else _NumPy
        self.prediction = self.ops.prepare(prediction)
        self.target = self.ops.prepare(target)

    def mean_square_error(self) -> Array:
        return self.ops.mean((self.prediction - self.target) ** 2, self.axes)

    def mean_absolute_error(self) -> Array:
        return self.ops.mean(abs(self.prediction - self.target), self.axes)

    def unbiased_variance(self) -> Array:
        """Variance of the target over space, over N - 1, from centred values (two passes)."""
        if self.points < 2:
            raise ScoreError("a variance over space needs at least 2 grid points, found 1")
        squares = self.ops.mean(self.ops.centred(self.target, self.axes) ** 2, self.axes)
        return squares * (self.points / (self.points - 1))


def _quiet() -> Any:
    """NaN and infinity are values with a meaning here (see the module's policy), nothing to warn about."""
    return np.errstate(invalid="ignore", over="ignore", divide="ignore")


def mse(prediction: Array, target: Array, *, n_spatial_dims: int, compat: Compat = None) -> Array:
    """Mean squared error over space: mean((x - y)^2), in the square of the fields' unit.

    Args:
        prediction: x, (..., space..., component).
        target: y, the same shape.
        n_spatial_dims: how many axes before the last one are space.
        compat: makes no difference here.
    """
    pair = _Pair(prediction, target, n_spatial_dims, compat)
    with _quiet():
        return pair.back(pair.mean_square_error())


def rmse(prediction: Array, target: Array, *, n_spatial_dims: int, compat: Compat = None) -> Array:
    """Root mean squared error over space: sqrt(MSE), in the fields' unit. Arguments as for `mse`."""
    pair = _Pair(prediction, target, n_spatial_dims, compat)
    with _quiet():
        return pair.back(pair.ops.sqrt(pair.mean_square_error()))


def mae(prediction: Array, target: Array, *, n_spatial_dims: int, compat: Compat = None) -> Array:
    """Mean absolute error over space: mean(|x - y|), in the fields' unit. Arguments as for `mse`."""
    pair = _Pair(prediction, target, n_spatial_dims, compat)
    with _quiet():
        return pair.back(pair.mean_absolute_error())


def linf(prediction: Array, target: Array, *, n_spatial_dims: int, compat: Compat = None) -> Array:
    """Largest absolute error over space: max(|x - y|), in the fields' unit. Arguments as for `mse`."""
    pair = _Pair(prediction, target, n_spatial_dims, compat)
    with _quiet():
        return pair.back(pair.ops.maximum(abs(pair.prediction - pair.target), pair.axes))


def nmae(
    prediction: Array, target: Array, *, n_spatial_dims: int, eps: float = DEFAULT_EPS, compat: Compat = None
) -> Array:
    """Normalized mean absolute error: MAE / (mean(|y|) + eps), without unit.

    Args:
        prediction, target, n_spatial_dims: as for `mse`.
        eps: added to the denominator, in the fields' unit; keeps a target of zeros from dividing by zero.
        compat: makes no difference here.
    """
    pair = _Pair(prediction, target, n_spatial_dims, compat)
    with _quiet():
        return pair.back(pair.mean_absolute_error() / (pair.ops.mean(abs(pair.target), pair.axes) + eps))


def nmse(
    prediction: Array, target: Array, *, n_spatial_dims: int, eps: float = DEFAULT_EPS, compat: Compat = None
) -> Array:
    """Normalized mean squared error: MSE / (mean(y^2) + eps), without unit.

    Args:
        prediction, target, n_spatial_dims: as for `mse`.
        eps: added to the denominator, in the square of the fields' unit.
        compat: makes no difference here.
    """
    pair = _Pair(prediction, target, n_spatial_dims, compat)
    with _quiet():
        return pair.back(pair.mean_square_error() / (pair.ops.mean(pair.target**2, pair.axes) + eps))


def nrmse(
    prediction: Array, target: Array, *, n_spatial_dims: int, eps: float = DEFAULT_EPS, compat: Compat = None
) -> Array:
    """Normalized root mean squared error: sqrt(NMSE), without unit. Arguments as for `nmse`."""
    pair = _Pair(prediction, target, n_spatial_dims, compat)
    with _quiet():
        ratio = pair.mean_square_error() / (pair.ops.mean(pair.target**2, pair.axes) + eps)
        return pair.back(pair.ops.sqrt(ratio))


def vmse(
    prediction: Array, target: Array, *, n_spatial_dims: int, eps: float = DEFAULT_EPS, compat: Compat = None
) -> Array:
    """Variance-scaled mean squared error: MSE / (var(y) + eps), without unit; the square of `vrmse`.

    Arguments, variance, `compat` and source as for `vrmse`.
    """
    pair = _Pair(prediction, target, n_spatial_dims, compat)
    with _quiet():
        return pair.back(_variance_scaled(pair, eps, compat))


def vrmse(
    prediction: Array, target: Array, *, n_spatial_dims: int, eps: float = DEFAULT_EPS, compat: Compat = None
) -> Array:
    """Variance-scaled root mean squared error: sqrt(MSE / (var(y) + eps)), without unit.

    The score of The Well's benchmark (arXiv 2412.00568; the code of `the_well` 1.2,
    benchmark/metrics/spatial.py). var(y) is the unbiased variance of the target over space (N - 1), so
    predicting each target's own mean scores sqrt((N - 1) / N), just under 1, and a score above 1 is worse
    than that.

    Args:
        prediction: x, (..., space..., component), in physical units. The score is not the same in normalized
            units: `eps` weighs differently there.
        target: y, the same shape.
        n_spatial_dims: how many axes before the last one are space.
        eps: added to the variance, in the square of the fields' unit. It decides the score where the target
            is (nearly) uniform in space: a uniform target missed by 1e-3 scores 1e-3 / sqrt(1e-7) = 3.16.
        compat: "the_well" keeps eps at 1e-7 whatever is passed, as `the_well` 1.2 does.
    """
    pair = _Pair(prediction, target, n_spatial_dims, compat)
    with _quiet():
        return pair.back(pair.ops.sqrt(_variance_scaled(pair, eps, compat)))


def _variance_scaled(pair: _Pair, eps: float, compat: Compat) -> Array:
    used = DEFAULT_EPS if compat == "the_well" else eps
    return pair.mean_square_error() / (pair.unbiased_variance() + used)


def pearson_r(
    prediction: Array, target: Array, *, n_spatial_dims: int, eps: float | None = None, compat: Compat = None
) -> Array:
    """Pearson's correlation over space: sum(x' y') / (sqrt(sum(x'^2) sum(y'^2)) + eps), x' = x - mean(x).

    Between -1 and 1, without unit, the same for a field in any unit. Undefined, and NaN, where prediction or
    target is uniform in space.

    Args:
        prediction, target, n_spatial_dims: as for `mse`.
        eps: added to the denominator; None means 0 (and 1e-7 with compat="the_well").
        compat: "the_well" divides the biased covariance (N) by unbiased deviations (N - 1), so that a field's
            correlation with itself is (N - 1) / N; eps then stands beside a product of standard deviations,
            which pulls the correlation of fields of small amplitude towards 0, and to 0 for uniform ones.
    """
    pair = _Pair(prediction, target, n_spatial_dims, compat)
    if pair.points < 2:
        raise ScoreError("a correlation over space needs at least 2 grid points, found 1")
    ops, axes = pair.ops, pair.axes
    first = (..., *(slice(0, 1),) * n_spatial_dims, slice(None))
    with _quiet():
        # From the first point on, so that a uniform field is exactly 0 and not what rounding leaves of its mean.
        x, y = (ops.centred(values - values[first], axes) for values in (pair.prediction, pair.target))
        covariance, spread = (
            ops.mean(x * y, axes),
            ops.sqrt(ops.mean(x**2, axes)) * ops.sqrt(ops.mean(y**2, axes)),
        )
        if compat == "the_well":
            unbiased = spread * (pair.points / (pair.points - 1))
            return pair.back(covariance / (unbiased + (DEFAULT_EPS if eps is None else eps)))
        return pair.back(covariance / (spread + (0.0 if eps is None else eps)))
