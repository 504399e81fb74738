"""The guides do what they say: every command and every piece of Python in them runs, in order, in one shell."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("page", "blocks"),
    [
        ("migrating.md", 4),
        ("add-a-dataset.md", 8),
        ("streaming.md", 3),
        ("publish.md", 2),
        ("loading.md", 3),
        ("metrics.md", 2),
    ],
)
def test_every_block_of_a_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, blocks: int) -> None:
    lines, count = script_of((DOCS / page).read_text(encoding="utf-8"))
    assert count == blocks  # a fence that is spelled otherwise would be passed over
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # models this small lose time to threads, above all beside other work
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    result = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
