"""The compiled pass over frames of float32: sums, differences, extremes, oddities and a hash, without the interpreter.

`wellkit.scanning.numpy_kernels` gives the same without numba. Values are taken in lanes, so many at a time that each
lane belongs to one component: then every sum is a loop over independent numbers, which becomes vector code.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np

from wellkit.compiled import compile_kernel, compiled_folder
from wellkit.scanning.columns import (
    CHANGED,
    COUNT,
    DELTA_COUNT,
    DELTA_SQUARES,
    DELTA_SUM,
    HIGHEST,
    INFINITE,
    KEYS,
    LOWEST,
    NAN,
    NEW_NAN,
    SQUARES,
    SUM,
    ZERO,
)

_FOLDER = compiled_folder([Path(__file__), Path(__file__).with_name("columns.py")])
_part: Any = numba.njit(error_model="numpy")
_PAGE = 1 << 14  # values that stay in the second-level cache while each loop goes over them


@_part
def _add(x, shift, sums, squares):
    """Add x - shift, and its square, lane by lane. Lengths are multiples of the number of lanes."""
    lanes = sums.size
    for first in range(0, x.size, lanes):
        row = x[first : first + lanes]
        for lane in range(lanes):
            value = np.float64(row[lane]) - shift[lane]
            sums[lane] += value
            squares[lane] += value * value


@_part
def _add_differences(x, before, shift, sums, squares):
    lanes = sums.size
    for first in range(0, x.size, lanes):
        row = x[first : first + lanes]
        old = before[first : first + lanes]
        for lane in range(lanes):
            value = np.float64(row[lane]) - np.float64(old[lane]) - shift[lane]
            sums[lane] += value
            squares[lane] += value * value


@_part
def _widen(x, low, high):
    lanes = low.size
    for first in range(0, x.size, lanes):
        row = x[first : first + lanes]
        for lane in range(lanes):
            low[lane] = min(low[lane], row[lane])
            high[lane] = max(high[lane], row[lane])


@_part
def _add_present(x, shift, counts, sums, squares, low, high):
    """As `_add` and `_widen`, NaN and infinity left out."""
    lanes = sums.size
    for first in range(0, x.size, lanes):
        row = x[first : first + lanes]
        for lane in range(min(lanes, row.size)):
            value = row[lane]
            if np.isfinite(value):
                difference = np.float64(value) - shift[lane]
                counts[lane] += 1
                sums[lane] += difference
                squares[lane] += difference * difference
                low[lane] = min(low[lane], value)
                high[lane] = max(high[lane], value)


@_part
def _add_present_differences(x, before, shift, counts, sums, squares):
    lanes = sums.size
    for first in range(0, x.size, lanes):
        row = x[first : first + lanes]
        old = before[first : first + lanes]
        for lane in range(min(lanes, row.size)):
            if np.isfinite(row[lane]) and np.isfinite(old[lane]):
                value = np.float64(row[lane]) - np.float64(old[lane]) - shift[lane]
                counts[lane] += 1
                sums[lane] += value
                squares[lane] += value * value


@_part
def _look(bits, before):
    """(values that are not finite, zeros, values that differ in a bit from those before)."""
    odd, zeros, changed = 0, 0, 0
    for number in range(bits.size):
        word = bits[number]
        magnitude = word & np.uint32(0x7FFFFFFF)
        odd += magnitude >= np.uint32(0x7F800000)
        zeros += magnitude == np.uint32(0)
        changed += word != before[number]
    return odd, zeros, changed


@_part
def _look_closer(bits, before):
    """(NaN, infinities, NaN where there was none before)."""
    nan, infinite, new = 0, 0, 0
    limit = np.uint32(0x7F800000)
    mask = np.uint32(0x7FFFFFFF)
    for number in range(bits.size):
        magnitude = bits[number] & mask
        nan += magnitude > limit
        infinite += magnitude == limit
        new += magnitude > limit and (before[number] & mask) <= limit
    return nan, infinite, new


@_part
def _weight(number):
    """An odd number for each block of keys (the finalizer of splitmix64)."""
    z = np.uint64(number + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) | np.uint64(1)


@_part
def _sum_of_products(words, keys):
    total = np.uint64(0)
    for number in range(words.size):
        word = words[number]
        # The upper half comes first: it is what differs between round numbers.
        turned = np.uint32((word << np.uint32(16)) | (word >> np.uint32(16)))
        total += np.uint64(turned) * keys[number]
    return total


@_part
def _hash(words, start, keys):
    """Sum of words times the keys of their places, modulo 2^64: parts of a frame can be hashed in any order."""
    total = np.uint64(0)
    at = 0
    while at < words.size:
        block, inside = divmod(start + at, KEYS)
        size = min(KEYS - inside, words.size - at)
        part = _sum_of_products(words[at : at + size], keys[inside : inside + size])
        total += part * _weight(block)
        at += size
    return total


@_part
def _choose_shifts(values, before, knows_before, shifts):
    """For each component the first value, and the first difference, that is finite: sums are taken around these."""
    components = shifts.shape[1]
    for component in range(components):
        for at in range(component, values.size, components):
            if np.isfinite(values[at]):
                shifts[0, component] = np.float64(values[at])
                break
        if knows_before:
            for at in range(component, values.size, components):
                difference = np.float64(values[at]) - np.float64(before[at])
                if np.isfinite(difference):
                    shifts[1, component] = difference
                    break


@_part
def _fold(lanes, components, out, column):
    for lane in range(lanes.size):
        out[lane % components, column] += lanes[lane]


def _scan(block, before, has_before, start, components, keys, shifts, hashes, counts, moments):
    lanes = components * max(1, 64 // components)
    size = block.shape[1]
    page = _PAGE // lanes * lanes
    shift, delta_shift = np.empty(lanes), np.empty(lanes)
    work = np.empty((6, lanes))
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    old = before
    for frame in range(block.shape[0]):
        values = block[frame]
        bits, old_bits = values.view(np.uint32), old.view(np.uint32)
        knows_old = has_before or frame > 0
        _choose_shifts(values, old, knows_old, shifts[frame])
        for lane in range(lanes):
            shift[lane] = shifts[frame, 0, lane % components]
            delta_shift[lane] = shifts[frame, 1, lane % components]
        work[:] = 0.0
        low[:] = np.inf
        high[:] = -np.inf
        total = np.uint64(0)
        was_odd = frame > 0 and counts[frame - 1, NAN] + counts[frame - 1, INFINITE] > 0
        n_odd, n_old_odd = 0, 0
        for first in range(0, size, page):
            last = min(first + page, size)
            total += _hash(bits[first:last], start + first, keys)
            odd, zeros, changed = _look(bits[first:last], old_bits[first:last])
            counts[frame, ZERO] += zeros
            counts[frame, CHANGED] += changed
            old_odd = 0
            if knows_old and (was_odd or frame == 0):
                old_odd = _look(old_bits[first:last], old_bits[first:last])[0]
            n_odd += odd
            n_old_odd += old_odd
            whole = first + (last - first) // lanes * lanes  # up to here, every lane has a value
            x, tail = values[first:whole], values[whole:last]
            if odd == 0:
                _add(x, shift, work[1], work[2])
                _widen(x, low, high)
                work[0] += x.size // lanes
            else:
                nan, infinite, new = _look_closer(bits[first:last], old_bits[first:last])
                counts[frame, NAN] += nan
                counts[frame, INFINITE] += infinite
                counts[frame, NEW_NAN] += new if knows_old else 0
                _add_present(x, shift, work[0], work[1], work[2], low, high)
            _add_present(tail, shift, work[0], work[1], work[2], low, high)
            if knows_old:
                y = old[first:whole]
                if odd + old_odd == 0:
                    _add_differences(x, y, delta_shift, work[4], work[5])
                    work[3] += x.size // lanes
                else:
                    _add_present_differences(x, y, delta_shift, work[3], work[4], work[5])
                _add_present_differences(tail, old[whole:last], delta_shift, work[3], work[4], work[5])
        hashes[frame] += total
        out = moments[frame]
        _fold(work[0], components, out, COUNT)
        _fold(work[1], components, out, SUM)
        _fold(work[2], components, out, SQUARES)
        _fold(work[3], components, out, DELTA_COUNT)
        _fold(work[4], components, out, DELTA_SUM)
        _fold(work[5], components, out, DELTA_SQUARES)
        for lane in range(lanes):
            component = lane % components
            out[component, LOWEST] = min(out[component, LOWEST], low[lane])
            out[component, HIGHEST] = max(out[component, HIGHEST], high[lane])
        old = values


scan = compile_kernel(_scan, _FOLDER)
