"""Point-by-point measures: squared and absolute errors, normalized errors, largest error, correlation.

Common to all of them:

Shapes: `prediction` and `target` are (..., space..., component) of one shape; nothing is broadcast. The
    result is (..., component). A measure of N grid points is a mean, variance or maximum over those N points.
Precision: NumPy input is differenced and summed in float64 whatever its dtype, and the result is float64:
    squares of float32 numbers summed over 10^6 points would lose digits. Each frame and component is summed by
    itself in one order, so its value is the same to the last bit in whatever batch it comes. Torch input keeps
    its dtype (float16, bfloat16 and integers are raised to float32) and device and stays differentiable; hand
    in float64 tensors for float64 sums.
Not-a-number: nothing is masked or replaced. A NaN in the prediction or target of a component makes that
    component's value NaN; an infinite prediction makes it infinite or NaN. Other components are not touched.
compat: None, or "the_well" for the values of `the_well` 1.2 (to rounding), so that figures made with it can
    be reproduced. Where the two definitions differ, the function says how.

All of them raise ScoreError where the shapes differ, have no component axis, or are too small, where the
arguments belong to different frameworks, or where `compat` is unknown.
"""

from __future__ import annotations

from wellkit.errors import ScoreError
from wellkit.frameworks import Array
from wellkit.metrics.rows import DEFAULT_EPS, Compat, Pair, quiet


def mse(prediction: Array, target: Array, *, n_spatial_dims: int, compat: Compat = None) -> Array:
    """Mean squared error over space: mean((x - y)^2), in the square of the fields' unit.

    Args:
        prediction: x, (..., space..., component).
        target: y, the same shape.
        n_spatial_dims: how many axes before the last one are space.
        compat: makes no difference here.
    """
    pair = Pair(prediction, target, n_spatial_dims, compat)
    with quiet():
        return pair.back(pair.mean_square_error())


def rmse(prediction: Array, target: Array, *, n_spatial_dims: int, compat: Compat = None) -> Array:
    """Root mean squared error over space: sqrt(MSE), in the fields' unit. Arguments as for `mse`."""
    pair = Pair(prediction, target, n_spatial_dims, compat)
    with quiet():
        return pair.back(pair.ops.sqrt(pair.mean_square_error()))


def mae(prediction: Array, target: Array, *, n_spatial_dims: int, compat: Compat = None) -> Array:
    """Mean absolute error over space: mean(|x - y|), in the fields' unit. Arguments as for `mse`."""
    pair = Pair(prediction, target, n_spatial_dims, compat)
    with quiet():
        return pair.back(pair.mean_absolute_error())


def linf(prediction: Array, target: Array, *, n_spatial_dims: int, compat: Compat = None) -> Array:
    """Largest absolute error over space: max(|x - y|), in the fields' unit. Arguments as for `mse`."""
    pair = Pair(prediction, target, n_spatial_dims, compat)
    with quiet():
        return pair.back(pair.ops.maximum(abs(pair.prediction - pair.target)))


def nmae(
    prediction: Array, target: Array, *, n_spatial_dims: int, eps: float = DEFAULT_EPS, compat: Compat = None
) -> Array:
    """Normalized mean absolute error: MAE / (mean(|y|) + eps), without unit.

    Args:
        prediction, target, n_spatial_dims: as for `mse`.
        eps: added to the denominator, in the fields' unit; keeps a target of zeros from dividing by zero.
        compat: makes no difference here.
    """
    pair = Pair(prediction, target, n_spatial_dims, compat)
    with quiet():
        return pair.back(pair.mean_absolute_error() / (pair.ops.mean(abs(pair.target)) + eps))


def nmse(
    prediction: Array, target: Array, *, n_spatial_dims: int, eps: float = DEFAULT_EPS, compat: Compat = None
) -> Array:
    """Normalized mean squared error: MSE / (mean(y^2) + eps), without unit.

    Args:
        prediction, target, n_spatial_dims: as for `mse`.
        eps: added to the denominator, in the square of the fields' unit.
        compat: makes no difference here.
    """
    pair = Pair(prediction, target, n_spatial_dims, compat)
    with quiet():
        return pair.back(pair.mean_square_error() / (pair.ops.mean(pair.target**2) + eps))


def nrmse(
    prediction: Array, target: Array, *, n_spatial_dims: int, eps: float = DEFAULT_EPS, compat: Compat = None
) -> Array:
    """Normalized root mean squared error: sqrt(NMSE), without unit. Arguments as for `nmse`."""
    pair = Pair(prediction, target, n_spatial_dims, compat)
    with quiet():
        ratio = pair.mean_square_error() / (pair.ops.mean(pair.target**2) + eps)
        return pair.back(pair.ops.sqrt(ratio))


def vmse(
    prediction: Array, target: Array, *, n_spatial_dims: int, eps: float = DEFAULT_EPS, compat: Compat = None
) -> Array:
    """Variance-scaled mean squared error: MSE / (var(y) + eps), without unit; the square of `vrmse`.

    Arguments, variance, `compat` and source as for `vrmse`.
    """
    pair = Pair(prediction, target, n_spatial_dims, compat)
    with quiet():
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
    pair = Pair(prediction, target, n_spatial_dims, compat)
    with quiet():
        return pair.back(pair.ops.sqrt(_variance_scaled(pair, eps, compat)))


def _variance_scaled(pair: Pair, eps: float, compat: Compat) -> Array:
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
    pair = Pair(prediction, target, n_spatial_dims, compat)
    if pair.points < 2:
        raise ScoreError("a correlation over space needs at least 2 grid points, found 1")
    ops = pair.ops
    with quiet():
        # From the first point on, so that a uniform field is exactly 0 and not what rounding leaves of its mean.
        x, y = (ops.centred(rows - rows[..., :1]) for rows in (pair.prediction, pair.target))
        covariance, spread = ops.mean(x * y), ops.sqrt(ops.mean(x**2)) * ops.sqrt(ops.mean(y**2))
        if compat == "the_well":
            unbiased = spread * (pair.points / (pair.points - 1))
            return pair.back(covariance / (unbiased + (DEFAULT_EPS if eps is None else eps)))
        return pair.back(covariance / (spread + (0.0 if eps is None else eps)))
