"""Example fields and spectra of a leaderboard's page: each picture once, and small enough for all of them to fit."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from wellkit.schemas.result import Example, Result, Spectrum

BUDGET = 2_500_000  # characters of base64 of all pictures of a page
_FACTORS = (1, 2, 3, 4, 6, 8, 12, 16)


class Pictures:
    """The pictures of all rows.

    Attributes:
        shared: by a short name: values as base64. Rows of a table share their truth.
    """

    def __init__(self, rows: Iterable[Sequence[Result]]) -> None:
        """Args: rows: the results of each row; of a row the first example is shown."""
        examples = [example for results in rows if (example := _first(results))]
        pool = {text for e in examples for p in e.pictures for text in (p.truth, p.prediction)}
        size = sum(map(len, pool))
        self.factor = next((f for f in _FACTORS if size / f**2 <= BUDGET), _FACTORS[-1])
        self.shared: dict[str, str] = {}

    def example(self, results: Sequence[Result]) -> dict[str, Any] | None:
        """What the page shows of a row; None where its results have no example."""
        example = _first(results)
        if example is None:
            return None
        pictures = []
        for picture in example.pictures:
            truth, prediction = (self._share(text, example) for text in (picture.truth, picture.prediction))
            if truth and prediction:
                pictures.append({"step": picture.step, "truth": truth, "prediction": prediction})
        return {
            "trajectory": example.trajectory,
            "component": example.component,
            "shape": _reduced(example.shape, self.factor),
            "axes": list(example.axes),
            "extent": [float(length) for length in example.extent],
            "low": float(f"{example.low:.6g}"),
            "high": float(f"{example.high:.6g}"),
            "reduced": self.factor,
            "pictures": pictures,
            "spectra": [_spectrum(spectrum) for spectrum in example.spectra],
        }

    def _share(self, text: str, example: Example) -> str | None:
        """The short name of a picture; None where its bytes are not of the size it says."""
        try:
            content = base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            return None
        if len(content) != math.prod(example.shape) or not content:
            return None
        values = np.frombuffer(content, np.uint8).reshape(example.shape)
        small = base64.b64encode(_reduce(values, self.factor).tobytes()).decode()
        name = hashlib.sha256(small.encode()).hexdigest()[:12]
        self.shared[name] = small
        return name


def _first(results: Sequence[Result]) -> Example | None:
    return next((result.example for result in results if result.example is not None), None)


def _reduced(shape: tuple[int, int], factor: int) -> list[int]:
    return [-(-length // factor) for length in shape]


def _reduce(values: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks of `factor` points a side; what is left over at the ends is a smaller block."""
    if factor == 1:
        return values
    starts = [np.arange(0, length, factor) for length in values.shape]
    sums = values.astype(np.float64)
    for axis, start in enumerate(starts):
        sums = np.add.reduceat(sums, start, axis=axis)
    counts = [np.diff([*start, length]) for start, length in zip(starts, values.shape, strict=True)]
    return np.asarray(np.rint(sums / np.outer(*counts)), np.uint8)


def _spectrum(spectrum: Spectrum) -> dict[str, Any]:
    def short(values: Sequence[float]) -> list[float | None]:
        return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]

    return {
        "step": spectrum.step,
        "wavenumber": short(spectrum.wavenumber),
        "truth": short(spectrum.truth),
        "prediction": short(spectrum.prediction),
    }
