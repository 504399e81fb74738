"""The compiled road for compressed chunks: read, decoded and gathered in the cache, one call a batch.

As `wellkit.readers.kernels`, whose common arguments these functions share: works on addresses, and imports numba.
`wellkit.readers.decoding` vouches that what is decoded fits into its slot, and what is gathered lies in it.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from wellkit.compiled import compile_kernel, compiled_folder
from wellkit.readers import kernels
from wellkit.readers.kernels import _add, _fletcher32, _part, _read_exactly, _steps, _unshuffle

# What a piece went through on its way to disk, in this order; FILL: it was never written.
SHUFFLED, DEFLATED, SUMMED, FILL = 1, 2, 4, 8
# Columns of the table of pieces.
FILE, OFFSET, STORED, DECODED, CODECS, SLOT, VALUE = range(7)
_CHECKSUM = 4  # bytes

_types: Any = types
_carray: Any = carray
_FOLDER = compiled_folder([Path(__file__), Path(kernels.__file__)])


def _pointer_to(kind: Any) -> Any:
    def pointer(typing_context: Any, address: Any) -> Any:
        signature = _types.CPointer(kind)(_types.uintp)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return signature, generate

    return intrinsic(pointer)


_bytes_at: Any = _pointer_to(_types.uint8)
_words_at: Any = _pointer_to(_types.uint32)


def _call(typing_context: Any, function: Any, state: Any, data: Any, size: Any, out: Any, room: Any) -> Any:
    """libdeflate_zlib_decompress(state, data, size, out, room, NULL): 0 if the stream fills `room` exactly."""
    signature = _types.int32(*[_types.uintp] * 6)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [word] * 6)
        called = builder.inttoptr(arguments[0], kind.as_pointer())
        return builder.call(called, [*arguments[1:], ir.Constant(word, 0)])

    return signature, generate


_inflate: Any = intrinsic(_call)
_sum: Any = _part(_fletcher32)
_restore: Any = _part(_unshuffle)


@_part
def _view(address, size):
    """Bytes in memory as an array."""
    return _carray(_bytes_at(np.uintp(address)), size)


@_part
def _is_intact(address, size):
    """Whether the checksum behind `size` bytes is theirs; old libraries exchanged the bytes of each of its halves."""
    found = np.uint32(_sum(_view(address, size)))
    there = _view(address + size, _CHECKSUM)
    stored = np.uint32(0)
    for number in range(_CHECKSUM):
        stored |= np.uint32(there[number]) << np.uint32(8 * number)
    low = np.uint32(0x00FF00FF)
    return stored == found or stored == (found & low) << np.uint32(8) | (found >> np.uint32(8)) & low


@_part
def _bring(piece, descriptor, scratch, slots, inflated, function, state):
    """Read and decode one piece into its slot; `scratch`: room for its stored bytes, and at `inflated` decoded."""
    slot = slots + piece[SLOT]
    stored, decoded, codecs = piece[STORED], piece[DECODED], piece[CODECS]
    if codecs & FILL:
        out = _words_at(np.uintp(slot))
        for i in range(decoded // 4):
            out[i] = np.uint32(piece[VALUE])
        return True
    at = scratch if codecs else slot
    if not _read_exactly(descriptor, at, stored, piece[OFFSET]):
        return False
    if codecs & SUMMED:
        stored -= _CHECKSUM
        if stored < 0 or not _is_intact(at, stored):
            return False
    if codecs & DEFLATED:
        target = inflated if codecs & SHUFFLED else slot
        done = _inflate(
            np.uintp(function), np.uintp(state), np.uintp(at), np.uintp(stored), np.uintp(target), np.uintp(decoded)
        )
        if done != 0:
            return False
        at = target
    elif stored != decoded:
        return False
    if codecs & SHUFFLED:
        _restore(_view(at, decoded), _view(slot, decoded), 4)
    elif at != slot:
        _view(slot, decoded)[:] = _view(at, decoded)
    return True


def _read_pieces(
    progress, tasks, units, frames, pieces, descriptors, heads, tails, split, dims, strides, offsets, scales, n_input,
    is_dense, streams, counts, scratch, inflated, slots, function, state,
):  # fmt: skip
    """Steps of windows, each as soon as the pieces that it is made of are decoded.

    Several threads may call this with the same arguments, each with memory and a decompressor of its own: they share
    the tasks.

    Args:
        progress: address of two int64, 0 at first: tasks that somebody has begun, and pieces that could not be read;
            with the first of these, all threads stop.
        tasks: int64: for each task the unit that it begins with, then the number of units.
        units: int64, axes (unit, 3): window, step, and the first piece that is needed from here on; one row more.
        frames: int64, axes (unit, field, 2): where in the slots a frame lies, the step before and the step itself.
        pieces: int64, axes (piece, 7), in the order of need; see the names of the columns.
        descriptors: int32, by file.
        heads, tails: int64, axis (window): addresses.
        scratch, inflated, slots: addresses of memory for the stored bytes of a piece, for those that are inflated but
            still shuffled, and for decoded pieces.
        function, state: addresses of `libdeflate_zlib_decompress`, and of a decompressor.
    """
    while True:
        task = _add(np.uintp(progress), 1)
        if task >= tasks.size - 1:
            return
        for unit in range(tasks[task], tasks[task + 1]):
            for number in range(units[unit, 2], units[unit + 1, 2]):
                if _add(np.uintp(progress + 8), 0) > 0:
                    return
                piece = pieces[number]
                descriptor = np.int32(0) if piece[CODECS] & FILL else descriptors[piece[FILE]]
                if not _bring(piece, descriptor, scratch, slots, inflated, function, state):
                    _add(np.uintp(progress + 8), 1)
                    return
            window, step = units[unit, 0], units[unit, 1]
            lead = 1 if step >= n_input else 0
            _steps(
                heads[window], tails[window], split, frames[unit, :, 1 - lead :] + slots, step, lead, dims, strides,
                offsets, scales, n_input, is_dense, streams, counts,
            )  # fmt: skip


read_pieces = compile_kernel(_read_pieces, _FOLDER)
