"""The compiled road from a shard's bytes to normalized, channels-last samples: one pass, no interpreter lock.

Functions here work on addresses and check nothing but the ends of files: `wellkit.readers.geometry` vouches that
frames, strides and sizes fit the arrays and the output. Importing this module imports numba;
`wellkit.readers.numpy_kernels` gives the same values without it.

Over 400 lines because what one kernel is made of is compiled, and kept on disk, as one module.

Common arguments:
    head, tail, split: addresses of two float32 blocks, axes (step, n0, n1, n2, channel), all of which is written: the
        steps before step `split`, and those from it on.
    frames: int64, axes (field, step): where a frame's first needed element lies, an address or a file offset.
    dims: int64, (n0, n1, n2): the points of a frame; axes that lie densely in every field are merged.
    strides: int64, axes (field, 4): elements from one point to the next along each of them, 0 to repeat; and
        components of a point, which lie side by side.
    offsets, scales: float32, axes (2, channel): of states, and of differences.
    n_input: steps from this one on are differences to the step before.
    is_dense: whether the points along n2 lie side by side in every field.
    streams: whether to write past the processor's caches: for more than they hold, that saves reading the lines first.
    counts: for each field a tuple of as many zeros as it has components: its *type* tells the compiler the channel
        layout, so that the inner loop becomes vector code.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# (numba takes types from the arguments, and refuses some functions that are annotated)

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from wellkit.compiled import Function, compile_kernel, compiled_folder

DONE, NOT_MAPPED, NOT_READ = 0, 1, 2  # what the window functions return

PAGE = 4096
# Maps begin and end at multiples of this, so that a page cache of huge pages is mapped by huge pages; only the
# needed pages are brought in.
HUGE_PAGE = 1 << 21
MERGE_GAP = 1 << 16  # unneeded bytes between two frames below which they are mapped as one piece
MAP_BLOCK = 1 << 28  # bytes mapped at a time: a whole trajectory may be larger than memory
UNROLLED = 8  # channels up to which the compiler makes vector code of an interleaving loop
BLOCK = 128  # points whose values stay in the first-level cache while they are interleaved
ROW_GAP = 1 << 14  # unneeded bytes between two rows above which they are read one by one

_PROT_READ, _MAP_SHARED, _MAP_POPULATE, _POPULATE_READ = 1, 1, 0x8000, 22
_types: Any = types
_mmap: Any = _types.ExternalFunction(
    "mmap", types.intp(types.intp, types.uintp, types.int32, types.int32, types.int32, types.int64)
)
_munmap: Any = _types.ExternalFunction("munmap", types.int32(types.intp, types.uintp))
_madvise: Any = _types.ExternalFunction("madvise", types.int32(types.intp, types.uintp, types.int32))
_pread: Any = _types.ExternalFunction("pread", types.intp(types.int32, types.intp, types.uintp, types.int64))

_FOLDER = compiled_folder([Path(__file__)])
_part: Any = numba.njit(error_model="numpy")  # compiled into the kernels that call it


def _kernel(function: Function) -> Function:
    return compile_kernel(function, _FOLDER)


def _float_pointer(typing_context: Any, address: Any) -> Any:
    signature = _types.CPointer(types.float32)(types.uintp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, generate


_pointer: Any = intrinsic(_float_pointer)
LINE = 64  # bytes of a cache line


def _store_line(typing_context: Any, target: Any, source: Any) -> Any:
    """Copy one cache line past the caches; the target is a multiple of its size."""
    signature = _types.void(_types.uintp, _types.uintp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line = ir.VectorType(ir.FloatType(), LINE // 4).as_pointer()
        values = builder.load(builder.inttoptr(arguments[1], line), align=1)
        store = builder.store(values, builder.inttoptr(arguments[0], line), align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return signature, generate


def _drain_stores(typing_context: Any) -> Any:
    """Let all that was written past the caches be seen by other threads."""
    signature = _types.void()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return signature, generate


def _grow(typing_context: Any, address: Any, amount: Any) -> Any:
    """Add to the int64 at `address`, which all threads see, and return what it was before."""
    signature = _types.int64(_types.uintp, _types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "seq_cst")

    return signature, generate


_stream: Any = intrinsic(_store_line)
_drain: Any = intrinsic(_drain_stores)
_add: Any = intrinsic(_grow)


def frame_source(counts: tuple[int, ...]) -> str:
    """Source of the gather of one frame, for fields of `counts` components.

    Few channels of dense states are gathered in one loop, channels unrolled: then the compiler sees that they fill
    whole lines, and loads, divides and stores whole vectors. It does not see that in many channels or in
    differences: those are computed field by field for a block of points, as one run, and interleaved from there.
    """
    total = sum(counts)
    places = [(field, part) for field, count in enumerate(counts) for part in range(count)]
    firsts = [sum(counts[:field]) for field in range(len(counts))]
    lines = ["def frame(out, at, before, is_delta, is_dense, streams, dims, strides, offset, scale, counts):"]
    lines += [f"    o{c} = offset[{c}]; d{c} = scale[{c}]" for c in range(total)]
    # Values of a block of points, each one's offset and scale, and the block interleaved (room to begin with a line).
    lines.append(f"    work = empty((4, {BLOCK * total + LINE}), float32)")
    lines.append(f"    row4 = work[3].ctypes.data; block = pointer(uintp(row4 + (-row4) % {LINE}))")
    lines.append(f"    lines = row4 + (-row4) % {LINE}")
    for f, (count, first) in enumerate(zip(counts, firsts, strict=True)):
        lines += [f"    {name}{f} = work[{row}, {BLOCK * first}:]" for row, name in enumerate("tuw")]
        lines.append(f"    if is_dense and (is_delta or {total > UNROLLED}):")
        for part in range(count):
            lines.append(f"        u{f}[{part}:{BLOCK * count}:{count}] = o{first + part}")
            lines.append(f"        w{f}[{part}:{BLOCK * count}:{count}] = d{first + part}")
    lines += ["    for i in range(dims[0]):", "        for j in range(dims[1]):"]
    lines.append(f"            row = out + 4 * (i * dims[1] + j) * dims[2] * {total}")
    lines.append(f"            past = streams and row % {LINE} == 0")
    for f in range(len(counts)):
        lines.append(f"            r{f} = 4 * (i * strides[{f}, 0] + j * strides[{f}, 1])")
    lines += [f"            for p in range(0, dims[2], {BLOCK}):", f"                size = min({BLOCK}, dims[2] - p)"]
    lines.append(f"                past = past and size == {BLOCK}")
    lines.append(f"                place = row + p * {4 * total}")
    lines.append("                q = block if past else pointer(uintp(place))")
    if total <= UNROLLED:
        lines.append("                if is_dense and not is_delta:")
        for f, count in enumerate(counts):
            lines.append(f"                    s{f} = pointer(uintp(at[{f}] + r{f} + 4 * p * {count}))")
        lines.append("                    for n in range(size):")
        for c, (f, part) in enumerate(places):
            lines.append(
                f"                        q[n * {total} + {c}] = (s{f}[n * {counts[f]} + {part}] - o{c}) / d{c}"
            )
        lines.append("                else:")
    else:
        lines.append("                if True:")
    for f, (count, first) in enumerate(zip(counts, firsts, strict=True)):
        lines.append(f"                    e = strides[{f}, 2]")
        lines.append(f"                    s = pointer(uintp(at[{f}] + r{f} + 4 * p * e))")
        lines.append(f"                    b = pointer(uintp(before[{f}] + r{f} + 4 * p * e))")
        for case, dense, value in (
            ("if is_dense and not is_delta", True, "s[{0}]"),
            ("elif is_dense", True, "(s[{0}] - b[{0}])"),
            ("elif not is_delta", False, "s[{0}]"),
            ("else", False, "(s[{0}] - b[{0}])"),
        ):
            lines.append(f"                    {case}:")
            if dense:
                lines.append(f"                        for n in range(size * {count}):")
                lines.append(f"                            t{f}[n] = ({value.format('n')} - u{f}[n]) / w{f}[n]")
                continue
            lines.append("                        for n in range(size):")
            for part in range(count):
                x, c = value.format(f"n * e + {part}"), first + part
                lines.append(f"                            t{f}[n * {count} + {part}] = ({x} - o{c}) / d{c}")
    lines.append("                    for n in range(size):")
    for c, (f, part) in enumerate(places):
        lines.append(f"                        q[n * {total} + {c}] = t{f}[n * {counts[f]} + {part}]")
    lines.append("                if past:")
    lines.append(f"                    for n in range(0, {4 * BLOCK * total}, {LINE}):")
    lines.append("                        stream(uintp(place + n), uintp(lines + n))")
    return "\n".join(lines)


def _frame(*arguments: Any) -> None:
    """One frame, every field's (x - offset) / scale interleaved."""
    raise NotImplementedError("there is only the compiled form")


def _compile_frame(out, at, before, is_delta, is_dense, streams, dims, strides, offset, scale, counts):
    names: dict[str, Any] = {
        "pointer": _pointer,
        "stream": _stream,
        "uintp": np.uintp,
        "empty": np.empty,
        "float32": np.float32,
    }
    exec(frame_source(tuple(len(part) for part in counts)), names)
    return names["frame"]


overload(_frame)(_compile_frame)


@_part
def _address(head, tail, split, step, size):
    """Where a step of `size` bytes is delivered."""
    return head + step * size if step < split else tail + (step - split) * size


@_part
def _steps(
    head, tail, split, frames, first, lead, dims, strides, offsets, scales, n_input, is_dense, streams, counts
):  # fmt: skip
    """Steps first.. of a window; column `lead` of `frames` is step `first`, a column before it the step before."""
    size = 4 * dims[0] * dims[1] * dims[2] * offsets.shape[1]
    at = np.empty(frames.shape[0], np.int64)
    before = np.empty(frames.shape[0], np.int64)
    for column in range(lead, frames.shape[1]):
        step = first + column - lead
        is_delta = step >= n_input
        at[:] = frames[:, column]
        before[:] = frames[:, column - 1 if is_delta else column]
        kind = 1 if is_delta else 0
        _frame(
            _address(head, tail, split, step, size), at, before, is_delta, is_dense, streams, dims, strides,
            offsets[kind], scales[kind], counts,
        )  # fmt: skip
    _drain()


def _gather_steps(
    head, tail, split, frames, first, lead, dims, strides, offsets, scales, n_input, is_dense, streams, counts
):  # fmt: skip
    """Gather frames that lie in memory; see `_steps`."""
    _steps(head, tail, split, frames, first, lead, dims, strides, offsets, scales, n_input, is_dense, streams, counts)


@_part
def _spans(dims, strides):
    """Bytes from the first needed element of a frame to the end of the last one, for each field."""
    spans = 4 * strides[:, 3]
    for axis in range(3):
        spans += 4 * (dims[axis] - 1) * strides[:, axis]
    return spans


@_part
def _map_frames(frames, spans, descriptor, populate, places, maps):
    """Map `frames`, neighbours together; addresses go to `places`, what to unmap to `maps`. (maps, whether all)"""
    n_maps = 0
    for field in range(frames.shape[0]):
        step = 0
        while step < frames.shape[1]:
            low = frames[field, step]
            high = low + spans[field]
            end = step + 1
            while end < frames.shape[1] and low <= frames[field, end] <= high + MERGE_GAP:
                high = max(high, frames[field, end] + spans[field])
                end += 1
            origin = low // HUGE_PAGE * HUGE_PAGE
            length = -(-high // HUGE_PAGE) * HUGE_PAGE - origin
            address = _mmap(0, length, _PROT_READ, _MAP_SHARED, descriptor, origin)
            if address == -1:
                return n_maps, False
            maps[n_maps, 0] = address
            maps[n_maps, 1] = length
            n_maps += 1
            if populate:
                # Fails where a touch would be a SIGBUS: beyond the end of the file, or on a bad disk.
                needed = low // PAGE * PAGE
                if _madvise(address + needed - origin, -(-high // PAGE) * PAGE - needed, _POPULATE_READ) != 0:
                    return n_maps, False
            for column in range(step, end):
                places[field, column] = address + frames[field, column] - origin
            step = end
    return n_maps, True


def _read_mapped(
    head, tail, split, frames, dims, strides, offsets, scales, n_input, is_dense, streams, counts, descriptor, populate
):  # fmt: skip
    """A window of frames at file offsets, all within the file, through maps that live as long as they are used."""
    spans = _spans(dims, strides)
    n_steps = frames.shape[1]
    block = max(1, MAP_BLOCK // max(1, spans.sum()))
    maps = np.empty((frames.shape[0] * (min(block, n_steps) + 1), 2), np.int64)
    first = 0
    while first < n_steps:
        last = min(first + block, n_steps)
        lead = 1 if first > 0 and last > n_input else 0
        part = frames[:, first - lead : last]
        places = np.empty(part.shape, np.int64)
        n_maps, complete = _map_frames(part, spans, descriptor, populate, places, maps)
        if complete:
            _steps(
                head, tail, split, places, first, lead, dims, strides, offsets, scales, n_input, is_dense, streams,
                counts,
            )  # fmt: skip
        for number in range(n_maps):
            _munmap(maps[number, 0], maps[number, 1])
        if not complete:
            return NOT_MAPPED
        first = last
    return DONE


@_part
def _tile_shape(dims, strides, room):
    """(rows, points of a row) whose bytes of all fields fit into `room`; part of a row only where one does not fit."""
    point = 0
    step = 0
    row = 0
    pitch = 0
    apart = False
    for field in range(strides.shape[0]):
        one = 4 * ((dims[2] - 1) * strides[field, 2] + strides[field, 3])
        point += 4 * strides[field, 3]
        step += 4 * strides[field, 2]
        row += one
        pitch += 4 * strides[field, 1]
        apart = apart or 4 * strides[field, 1] - one > ROW_GAP
    if row > room:
        return 1, max(1, 1 + (room - point) // max(1, step))
    if apart:
        return 1, dims[2]
    return min(dims[1], 1 + (room - row) // max(1, pitch)), dims[2]


@_part
def _read_exactly(descriptor, address, count, offset):
    while count > 0:
        got = _pread(descriptor, address, count, offset)
        if got <= 0:
            return False
        address += got
        offset += got
        count -= got
    return True


@_part
def _evenly(count, size):
    """`size` made smaller, so that parts of it, of which there are as many, are about equal; multiples of 16."""
    n_parts = -(-count // size)
    return min(size, -(-count // (16 * n_parts)) * 16)


@_part
def _tile(
    out, frames, step, i, j, p, rows, points, dims, strides, offsets, scales, is_delta, is_dense, streams, counts,
    descriptor, buffer, at, before,
):  # fmt: skip
    """Rows j.. of plane i, points p.. of them, at one step: read into `buffer`, gathered from there to frame `out`."""
    before[:] = at
    place = buffer
    for field in range(strides.shape[0]):
        count = 4 * ((rows - 1) * strides[field, 1] + (points - 1) * strides[field, 2] + strides[field, 3])
        skipped = 4 * (i * strides[field, 0] + j * strides[field, 1] + p * strides[field, 2])
        if not _read_exactly(descriptor, place, count, frames[field, step] + skipped):
            return False
        at[field] = place
        place += -(-count // LINE) * LINE
    tile = np.empty(3, np.int64)
    tile[0] = 1
    tile[1] = rows
    tile[2] = points
    kind = 1 if is_delta else 0
    point = (i * dims[1] + j) * dims[2] + p
    _frame(
        out + 4 * offsets.shape[1] * point, at, before, is_delta, is_dense, streams, tile, strides, offsets[kind],
        scales[kind], counts,
    )  # fmt: skip
    return True


def _read_tiles(
    progress, patience, heads, tails, split, frames, descriptors, statuses, dims, strides, offsets, scales, n_input,
    is_dense, streams, counts, buffer, room,
):  # fmt: skip
    """Windows of frames at file offsets, all within the files, in pieces that stay in the processor's cache.

    Several threads may call this with the same arguments, each with a buffer of its own: they share the tiles. Returns
    whether all are there.

    Args:
        progress: address of two int64, 0 at first: tiles that somebody has begun, and those that are there.
        patience: how often to look whether all tiles are there before giving up waiting.
        heads, tails: int64, axis (window): addresses.
        frames: int64, axes (window, field, step): file offsets.
        descriptors: int32, axis (window).
        statuses: uint8, axis (window): set to NOT_READ where the storage fails.
        buffer: address of `room` bytes.
    """
    n_windows, n_fields, n_steps = frames.shape
    has_delta = n_input < n_steps
    half = room // 2 if has_delta else room  # differences need the tile of the step before
    rows, points = _tile_shape(dims, strides, half - LINE * n_fields)
    if points < dims[2]:
        points = _evenly(dims[2], points)
    across = -(-dims[2] // points)
    down = -(-dims[1] // rows)
    # States are read frame by frame, as they lie in the file; differences tile by tile.
    inner = n_steps if has_delta else 1
    per_frame = dims[0] * down * across
    per_window = per_frame * (n_steps // inner)
    size = 4 * dims[0] * dims[1] * dims[2] * offsets.shape[1]
    at = np.zeros(n_fields, np.int64)
    before = np.zeros(n_fields, np.int64)
    while True:
        number = _add(np.uintp(progress), 1)
        if number >= n_windows * per_window:
            break
        window = number // per_window
        outer = number % per_window // per_frame
        i = number % per_frame // (down * across)
        j = number % (down * across) // across * rows
        p = number % across * points
        for step in range(outer, outer + inner):
            if statuses[window] != DONE:
                break
            if not _tile(
                _address(heads[window], tails[window], split, step, size), frames[window], step, i, j, p,
                min(rows, dims[1] - j), min(points, dims[2] - p), dims, strides, offsets, scales, step >= n_input,
                is_dense, streams, counts, descriptors[window], buffer + (step % 2) * (room - half), at, before,
            ):  # fmt: skip
                statuses[window] = NOT_READ
        _drain()
        _add(np.uintp(progress + 8), 1)
    # What others have begun takes them no longer than a tile: sleeping and being woken would take longer.
    looks = 0
    while looks < patience and _add(np.uintp(progress + 8), 0) < n_windows * per_window:
        looks += 1
    return looks < patience


def _repeat(source, target, n_bytes, copies):
    """Copies of what lies at `source`, side by side from `target` on; target and size are multiples of a cache line."""
    for at in range(0, n_bytes, LINE):
        for copy in range(copies):
            _stream(np.uintp(target + copy * n_bytes + at), np.uintp(source + at))
    _drain()


def _unshuffle(source, out, size):
    """Undo HDF5's shuffle, see `wellkit.readers.numpy_kernels.unshuffle`."""
    n = source.size // size
    if size == 4:  # written out, so that the compiler makes vector code
        for i in range(n):
            out[4 * i] = source[i]
            out[4 * i + 1] = source[n + i]
            out[4 * i + 2] = source[2 * n + i]
            out[4 * i + 3] = source[3 * n + i]
    elif size == 2:
        for i in range(n):
            out[2 * i] = source[i]
            out[2 * i + 1] = source[n + i]
    elif size == 8:
        for i in range(n):
            out[8 * i] = source[i]
            out[8 * i + 1] = source[n + i]
            out[8 * i + 2] = source[2 * n + i]
            out[8 * i + 3] = source[3 * n + i]
            out[8 * i + 4] = source[4 * n + i]
            out[8 * i + 5] = source[5 * n + i]
            out[8 * i + 6] = source[6 * n + i]
            out[8 * i + 7] = source[7 * n + i]
    else:
        for part in range(size):
            for i in range(n):
                out[i * size + part] = source[part * n + i]
    for i in range(n * size, source.size):
        out[i] = source[i]


def _fletcher32(data):
    """HDF5's Fletcher-32, see `wellkit.readers.numpy_kernels.fletcher32`."""
    first = np.uint64(0)
    second = np.uint64(0)
    seen = np.uint64(0)
    whole = data.size // 2
    for start in range(0, whole, 1 << 15):  # far from where the sums would overflow
        for i in range(start, min(start + (1 << 15), whole)):
            word = np.uint64(data[2 * i]) << np.uint64(8) | np.uint64(data[2 * i + 1])
            seen |= word
            first += word
            second += first
        first %= np.uint64(65535)
        second %= np.uint64(65535)
    if data.size % 2:
        word = np.uint64(data[data.size - 1]) << np.uint64(8)
        seen |= word
        first = (first + word) % np.uint64(65535)
        second = (second + first) % np.uint64(65535)
    if seen:
        first = first if first else np.uint64(65535)
        second = second if second else np.uint64(65535)
    return second << np.uint64(16) | first


gather_steps = _kernel(_gather_steps)
read_mapped = _kernel(_read_mapped)
read_tiles = _kernel(_read_tiles)
repeat = _kernel(_repeat)
unshuffle = _kernel(_unshuffle)
fletcher32 = _kernel(_fletcher32)
