"""Tampered results: every number that follows from others is found out, hashed anew or not."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.benchmark.results import make_result
from wellkit.benchmark.checking import check_result
from wellkit.errors import DocumentError, ScoreError
from wellkit.schemas.result import Result, content_hash

PROTOCOLS = ("well-2024", "walrus-style-1", "wellkit-1")
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "limited": {"limit": 9},
    "one trajectory": {"trajectories": (1,), "frames": (40,)},
    "diverged": {"nonfinite": [1]},
    "flat frames": {"flat": 0.3},
    "flat frames, diverged": {"flat": 0.6, "nonfinite": [0, 2]},
    "a conserved quantity": {"drift": True},
}

# What no check without predictions can find, when it is changed by itself and a little (docs/leaderboard.md says so).
UNSEEN = (
    r"one_step\.median",
    r"one_step\.per_field_median\..*",
    r"rollout\.median",
    r"rollout\.per_field_median\..*",
    r"rollout\.drift\.0\.target",
    r"rollout\.drift\.0\.per_step\.\d+",
    r"trajectories\.\d+\.parameters\..*",
)


def make(protocol: str, **keys: Any) -> Result:
    return make_result(protocol=protocol, **({"frames": (41, 37)} | keys))


def tampered(result: Result, path: tuple[Any, ...], value: Any) -> Result:
    """The result with one leaf changed, hashed anew."""
    content = copy.deepcopy(result.to_mapping())
    place: Any = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return Result.parse(content, source="tampered").sealed()


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Every number, those that JSON writes as text too."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in pairs:
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))
        elif isinstance(value, int | float) or value in ("Infinity", "NaN"):
            yield (*path, key), float(value) if isinstance(value, str) else value


def changed(value: float) -> float:
    if isinstance(value, int):
        return value + 1
    return value * 1.001 + 1e-6 if math.isfinite(value) else 1.0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_true_results_pass(protocol: str, variant: str) -> None:
    keys = dict(VARIANTS[variant])
    if protocol != "wellkit-1":
        keys.pop("drift", None)
    for draw in range(5):
        check_result(make(protocol, draw=draw, data=draw, **keys), source="x.json")
    check_result(Result.parse(make(protocol, **keys).to_mapping(), source="x"), source="x.json")


@pytest.mark.parametrize("variant", ["plain", "limited", "one trajectory", "a conserved quantity"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_figure_that_is_changed_and_hashed_anew_is_found(protocol: str, variant: str) -> None:
    keys = dict(VARIANTS[variant])
    if protocol != "wellkit-1":
        keys.pop("drift", None)
    result = make(protocol, **keys)
    content = result.to_mapping()
    tried = 0
    for part in ("one_step", "rollout", "trajectories"):
        for path, value in leaves(content[part], (part,)):
            name = ".".join(map(str, path))
            if any(re.fullmatch(pattern, name) for pattern in UNSEEN):
                continue
            with pytest.raises(ScoreError) as refused:
                check_result(tampered(result, path, changed(value)), source="x.json")
            assert str(refused.value).startswith("x.json: "), name
            assert "\n" not in str(refused.value)
            tried += 1
    assert tried > 80


@pytest.mark.parametrize("variant", ["diverged", "flat frames", "flat frames, diverged"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_figures_with_flat_frames_and_infinities_are_checked_where_they_decide(protocol: str, variant: str) -> None:
    # Finite numbers below an infinite mean, and curves of components that lack entries, have nothing to be checked by.
    result = make(protocol, **VARIANTS[variant])
    for part in ("one_step", "rollout", "trajectories"):
        for path, value in leaves(result.to_mapping()[part], (part,)):
            name = ".".join(map(str, path))
            decides = re.fullmatch(
                r"(one_step|rollout)\.(mean|of_trajectories|pooled|per_field\..*|entries|flat|nonfinite|windows.*"
                r"|per_step.*|valid_length.*|trajectories.*)|trajectories\.\d+\.(frames|windows|counted.*|flat|nonfinite"
                r"|rollout_counted.*|rollout_flat|rollout_nonfinite|rollout\.\d+|valid_length)",
                name,
            )
            beneath = "diverged" in variant and re.search(r"\d\.(rollout\.|(rollout_)?counted)", name)
            if decides is None or beneath:
                continue
            with pytest.raises(ScoreError):
                check_result(tampered(result, path, changed(value)), source="x.json")


def test_infinity_cannot_be_made_finite() -> None:
    result = make("wellkit-1", nonfinite=[1])
    for path, value in leaves(result.to_mapping()["trajectories"], ("trajectories",)):
        if value == math.inf:
            with pytest.raises(ScoreError):
                check_result(tampered(result, path, 0.3), source="x.json")


def test_what_is_not_found_is_what_the_documentation_says() -> None:
    result = make("wellkit-1", drift=True)
    for path, value in leaves(result.to_mapping()):
        if any(re.fullmatch(pattern, ".".join(map(str, path))) for pattern in UNSEEN) and "per_step" not in path:
            check_result(tampered(result, path, value * 0.999), source="x.json")
    # ... and even these have bounds: entries are not negative, so that a median is at most twice its mean.
    for path in (("one_step", "median"), ("rollout", "per_field_median", "u")):
        with pytest.raises(ScoreError, match=r"median.* is 50, which must be from 0 to"):
            check_result(tampered(result, path, 50.0), source="x.json")


def test_the_seal() -> None:
    result = make("wellkit-1")
    with pytest.raises(ScoreError, match=r"^x\.json: sha256 is .*, the content gives .*; the result is refused"):
        check_result(result.model_copy(update={"rollout_limit": 7}), source="x.json")
    with pytest.raises(ScoreError, match="sha256"):
        check_result(result.model_copy(update={"sha256": ""}), source="x.json")


def test_protocols() -> None:
    result = make("well-2024")
    eps = result.model_copy(update={"protocol": result.protocol.model_copy(update={"eps": 1e-3})}).sealed()
    with pytest.raises(ScoreError, match=r"protocol well-2024 is altered: eps is 0\.001, not 1e-07"):
        check_result(eps, source="x.json")
    other = result.model_copy(update={"protocol": result.protocol.model_copy(update={"name": "well-2023"})}).sealed()
    with pytest.raises(ScoreError, match=r"protocol 'well-2023' is unknown here .* Did you mean well-2024"):
        check_result(other, source="x.json")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("model", "kind"), "baseline", "'fno' is no baseline: those are persistence and mean"),
        (("model", "n_steps_input"), 3, "n_steps_input is 3"),
        (("dataset", "trajectories", 0), 3, "3 trajectories are told of, dataset names 4"),
        (("dataset", "steps", 0), 50, "number 0 does not fit"),
        (("dataset", "files", 1), "other.hdf5", "number 2 does not fit"),
        (("dataset", "steps"), [41], "2 files"),
        (("dataset", "fields"), ["u"], "is of u, v, not of u"),
        (("dataset", "fields"), ["u", "u"], "names one twice"),
        (("data", "content_sha256"), content_hash(["a"]), "data.content_sha256"),
        (("trajectories", 0, "content_sha256"), "a", "is 'a', which is no SHA-256"),
        (("trajectories", 0, "content_sha256"), "a" * 64, "data.content_sha256"),
        (("rollout_limit",), 5, "number of steps in trajectories.0.rollout is 37"),
        (("trajectories", 0, "one_step", "u"), "NaN", "is nan, which is no score"),
        (("one_step", "per_field", "u"), -1.0, "cannot be below 0"),
        (("model", "training_seconds"), -1.0, "cannot be below 0"),
        (("rollout", "windows", "1:99"), 0.1, "rollout.windows is of"),
        (("trajectories",), [], "0 trajectories are told of"),
        (("dataset", "trajectories"), [10**30, 1], "trajectories are told of, dataset names 1000000000000000000"),
        (("dataset", "trajectories"), [10**30, 2 - 10**30], "their count does not fit"),
        (("model", "parameters"), -(10**400), "cannot be below 0"),
        (("model", "name"), "fno\x1b[2J", r"model.name is 'fno\x1b[2J', which is not one line of printable text"),
        (("dataset", "split"), "te\nst", "dataset.split"),
    ],
)
def test_identities_that_do_not_fit(path: tuple[Any, ...], value: Any, said: str) -> None:
    with pytest.raises(ScoreError, match=re.escape(said)):
        check_result(tampered(make("well-2024"), path, value), source="x.json")


def test_parts_that_the_protocol_does_not_have() -> None:
    ours = make("wellkit-1", drift=True).to_mapping()
    for path in (("rollout", "drift"), ("one_step", "spectral"), ("rollout", "valid_length")):
        with pytest.raises(ScoreError, match=path[-1].replace("valid_length", "valid rollout lengths")):
            check_result(tampered(make("well-2024"), path, ours[path[0]][path[1]]), source="x.json")
    with pytest.raises(ScoreError, match="valid rollout lengths"):
        check_result(tampered(make("wellkit-1"), ("rollout", "valid_length"), None), source="x.json")


def test_numbers_that_json_cannot_hold() -> None:
    result = make("wellkit-1")
    run = result.run.model_copy(update={"seconds": math.inf})
    with pytest.raises(ScoreError, match="a number that must be finite"):
        check_result(result.model_copy(update={"run": run}), source="x.json")


def test_a_result_without_any_score() -> None:
    result = make_result(protocol="wellkit-1")
    counted = [each.model_copy(update={"counted": {"u": 0, "v": 0}}) for each in result.trajectories]
    with pytest.raises(ScoreError):
        check_result(result.model_copy(update={"trajectories": tuple(counted)}).sealed(), source="x.json")


def test_baselines_have_nothing_of_their_own() -> None:
    check_result(make_result("persistence"), source="x")
    for key, value in (("seed", 1), ("parameters", 5), ("weights_sha256", "a")):
        with pytest.raises(ScoreError, match="neither weights"):
            check_result(make_result("mean", model={key: value}), source="x.json")
    with pytest.raises(DocumentError):
        make_result("mean", model={"kind": "unheard of"})
