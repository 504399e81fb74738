"""Everything validation can find: code -> how bad it is, what it means, and what to do."""

from __future__ import annotations

from typing import NamedTuple, TypedDict, Unpack

from wellkit.schemas.erratum import Severity
from wellkit.schemas.validation import Finding

_AGAIN = "download the shard again, or write it again from its source"
_LEAVE_OUT = "leave the trajectory out (exclude_filters, or an erratum in the card), or ask the publisher"
_CARD = "correct whichever is wrong: the card (a copy of your own goes with --card) or the shards"


class Code(NamedTuple):
    """One kind of finding."""

    severity: Severity
    meaning: str
    advice: str


CODES: dict[str, Code] = {
    # files
    "unreadable": Code("error", "the shard cannot be read: not HDF5, cut off, damaged, or its parser crashed", _AGAIN),
    "format": Code("error", "a group, attribute or array is missing, or shapes contradict each other", _AGAIN),
    "unwritten": Code("error", "chunks of an array were never written and read as the fill value", _AGAIN),
    "empty-split": Code("error", "a split's folder holds no shards", "download the split again"),
    "stray-file": Code("warning", "a file that is no shard lies among the shards", "delete it, or move it elsewhere"),
    "wasted-space": Code(
        "warning", "the file is much larger than all its arrays", "repack it (h5repack), or download it again"
    ),
    "shared-file-names": Code(
        "info", "two splits use the same file names", "never collect shards of several splits in one folder"
    ),
    # format
    "element-type": Code("warning", "elements are not 32-bit floats", "readers convert them; store float32"),
    "unlisted-array": Code(
        "warning", "an array is in no list of field_names, so that readers pass it over", "list it, or delete it"
    ),
    "missing-parameter": Code(
        "error", "simulation_parameters names a parameter that the root has no attribute for", _AGAIN
    ),
    "parameter-mismatch": Code("error", "a parameter's attribute and the scalar of its name differ", _AGAIN),
    "bad-scalar": Code("error", "a parameter or scalar is not a finite number", _AGAIN),
    "opaque-storage": Code(
        "info", "only libhdf5 can read an array, which is slower", "repack it contiguous, or with gzip and shuffle"
    ),
    "bad-axis": Code("error", "coordinates are not finite, or neither grow nor shrink throughout", _AGAIN),
    "uneven-axis": Code("warning", "coordinates are not evenly spaced", "say so in a card (kind), or correct them"),
    "bad-time": Code("error", "times are not finite, or do not grow throughout", _AGAIN),
    "uneven-time": Code("warning", "times are not evenly spaced", "say so in a card (time.variable), or correct them"),
    "boundary-mask": Code("warning", "a boundary condition holds nowhere, or not where it says", _AGAIN),
    "shards-differ": Code(
        "error", "a shard differs from the others in what all have to share", "keep one kind of shard in a tree"
    ),
    # against the card
    "no-card": Code("info", "there is no card to compare with", "write one: docs/add-a-dataset.md"),
    "bad-card": Code("error", "the card cannot be used", "correct it; the message names the key"),
    "card-name": Code("error", "the shards are of another dataset than the card", _CARD),
    "card-fields": Code("error", "fields differ from the card's in name, order or what they vary along", _CARD),
    "card-scalars": Code("error", "a scalar of the card is missing", _CARD),
    "card-parameters": Code("warning", "a parameter has a value that the card does not list", _CARD),
    "card-resolution": Code("error", "the grid has another number of points than the card's", _CARD),
    "card-grid": Code("error", "axes differ from the card's in name, type, extent or spacing", _CARD),
    "card-steps": Code("error", "a trajectory is longer or shorter than the card allows", _CARD),
    "card-time": Code("error", "times differ from the card's in spacing or horizon", _CARD),
    "card-boundaries": Code("error", "boundary conditions differ from the card's", _CARD),
    "card-counts": Code("error", "a split holds more files or trajectories than the card knows", _CARD),
    "incomplete": Code(
        "warning", "a split holds fewer files or trajectories than published", "download the rest, if you need it"
    ),
    "card-size": Code(
        "error", "complete and uncompressed, but not as many bytes as the card's shapes and counts make", _CARD
    ),
    # data
    "nan": Code("error", "NaN where the card declares no mask", _LEAVE_OUT),
    "infinity": Code("error", "infinite values", _LEAVE_OUT),
    "nan-mask-moves": Code("warning", "points become NaN that were not in the first frame", _LEAVE_OUT),
    "constant-frames": Code("error", "frames that hold one value everywhere, among frames that do not", _LEAVE_OUT),
    "constant-field": Code(
        "warning", "a field holds one value everywhere in all frames of a trajectory", "see whether it is meant so"
    ),
    "frozen-frames": Code("error", "frames that repeat the one before, bit by bit, amid change", _LEAVE_OUT),
    "frozen-field": Code("warning", "a field never changes in a trajectory whose other fields do", _LEAVE_OUT),
    "frozen-trajectory": Code("error", "no field of a trajectory ever changes", _LEAVE_OUT),
    "settled": Code("info", "a trajectory has come to rest: its last frames are the same", "shorten it, if you like"),
    "duplicated-frames": Code("error", "frames that are the same, bit by bit, as others elsewhere", _LEAVE_OUT),
    "duplicated-trajectory": Code("error", "two trajectories of a split are the same", "leave one of them out"),
    "leakage": Code(
        "error", "a trajectory, or frames of it, are in two splits", "leave it out of training, or scores mean nothing"
    ),
    "shared-field": Code("warning", "one field, but not others, is the same in two trajectories", _LEAVE_OUT),
    "shared-start": Code("info", "two trajectories begin with the same frames", "see whether it is meant so"),
    "outlier-frames": Code("warning", "values far beyond those of the frames around", _LEAVE_OUT),
    "outlier-trajectory": Code("warning", "a trajectory a thousand times larger or smaller than others", _LEAVE_OUT),
    "fill-value": Code("warning", "values that are commonly put where there are no data", _LEAVE_OUT),
    "zeroed-region": Code("warning", "a part of a frame is suddenly zero", _LEAVE_OUT),
    "discontinuity": Code("warning", "one step changes the field far more than those around it", _LEAVE_OUT),
    "asymmetric-tensor": Code("error", "a tensor is not symmetric, or antisymmetric, as its attributes say", _AGAIN),
    # statistics
    "no-statistics": Code("warning", "there is no stats.yaml", "wellkit stats PATH --write"),
    "bad-statistics": Code(
        "error", "stats.yaml cannot be used, or does not fit the fields", "wellkit stats PATH --write --overwrite"
    ),
    "statistics-differ": Code(
        "error",
        "stats.yaml is not that of the training split",
        "where the data are right: wellkit stats PATH --write --overwrite",
    ),
    "impossible-statistics": Code(
        "error",
        "statistics that no data can have: rms² is not mean² + std², or |mean_delta| (T - 1) is far beyond the rms",
        "wellkit stats PATH --write --overwrite",
    ),
    "card-statistics": Code("warning", "the card's statistics are not those of the training split", _CARD),
    "statistics-not-compared": Code(
        "info", "stats.yaml was not compared: the training split is not complete", "download the rest to compare"
    ),
}


class Where(TypedDict, total=False):
    """The part of a tree that a finding is about: see `Finding`. An empty split is that of a bare folder."""

    split: str
    shard: str
    trajectory: int | None
    frames: tuple[int, int] | None
    field: str | None


def printable(text: str) -> str:
    """On one line, and of characters that can be written: damaged names, and file names, may hold any bytes."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").split())


def finding(code: str, message: str, place: Where | None = None, **more: Unpack[Where]) -> Finding:
    """A finding of a known code, at a place about which more may be known."""
    known = CODES[code]
    where = (place or {}) | more
    shard, name = where.get("shard"), where.get("field")
    return Finding(
        code=code,
        severity=known.severity,
        message=printable(message),
        advice=known.advice,
        split=where.get("split") or None,
        shard=None if shard is None else printable(shard),
        trajectory=where.get("trajectory"),
        frames=where.get("frames"),
        field=None if name is None else printable(name),
    )
