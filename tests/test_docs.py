"""The guides do what they say: every command and every piece of Python in them runs, in order, in one shell."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.hub.server import LoopbackHub
from wellkit.train.models import UNetConvNext

DOCS = Path(__file__).resolve().parents[1] / "docs"
_BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^```$', re.DOTALL | re.MULTILINE
)


def script_of(text: str) -> tuple[list[str], int]:
    """(lines of a shell script that does what a page says, how many blocks it holds)."""
    lines = ["set -e"]
    blocks = 0
    for block in _BLOCK.finditer(text):
        language, title, body = block["language"], block["title"], block["body"]
        if title:
            lines += [
                f"mkdir -p {shlex.quote(str(Path(title).parent))}",
                f"cat > {shlex.quote(title)} <<'END-OF-BLOCK'",
            ]
            lines += [body + "END-OF-BLOCK"]
        elif language == "python":
            lines += ["python -W error - <<'END-OF-BLOCK'", body + "END-OF-BLOCK"]
        elif language == "console":
            lines += [line.removeprefix("$ ") for line in body.splitlines() if line.startswith("$ ")]
        else:
            continue
        blocks += 1
    return lines, blocks


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the guides share, so that each kernel is compiled once."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def one_cache(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WELLKIT_CACHE", str(compiled))


@pytest.mark.parametrize(
    ("page", "blocks"),
    [
        ("migrating.md", 4),
        ("add-a-dataset.md", 12),
        ("streaming.md", 3),
        ("publish.md", 2),
        ("loading.md", 3),
        ("validate.md", 4),
        ("download.md", 2),
        ("metrics.md", 2),
        ("predictions.md", 5),
        ("published-scores.md", 1),
        ("leaderboard.md", 2),
        ("train.md", 3),
    ],
)
def test_every_block_of_a_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, blocks: int) -> None:
    run_guide(tmp_path, monkeypatch, page, blocks)


def test_every_block_of_the_guide_to_models_runs(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tiny network in the place of the published one.
    shape = {"dim_in": 16, "dim_out": 4, "n_spatial_dims": 2, "spatial_resolution": [128, 384]}
    model = UNetConvNext(16, 4, 2, (128, 384), blocks_per_stage=1, init_features=2, published_norm=True)
    folder = tmp_path / "repository"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**shape, "blocks_per_stage": 1, "init_features": 2}))
    hub.add("polymathic-ai/UNetConvNext-turbulent_radiative_layer_2D", folder, kind="models")
    run_guide(tmp_path, monkeypatch, "models.md", 2)


def run_guide(folder: Path, monkeypatch: pytest.MonkeyPatch, page: str, blocks: int) -> None:
    """Run what a page says in a folder."""
    lines, count = script_of((DOCS / page).read_text(encoding="utf-8"))
    assert count == blocks  # a fence that is spelled otherwise would be passed over
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # models this small lose time to threads, above all beside other work
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    result = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


def test_every_code_of_validation_is_explained() -> None:
    from wellkit.validation.codes import CODES

    told = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", (DOCS / "validate.md").read_text(), re.MULTILINE))
    assert told == {
        code: f"{known.severity} | {known.meaning.replace('|', chr(92) + '|')}" for code, known in CODES.items()
    }
