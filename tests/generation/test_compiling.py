"""When and where kernels are compiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wellkit import compiled, settings


def test_nothing_is_compiled_before_it_is_needed() -> None:
    code = (
        "import sys, wellkit.generation.registry as r; r.get('turbulent_radiative_layer_2D').settings({});"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_compiled_code_is_kept_beside_its_sources_else_in_the_users_cache_else_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "package" / "some_kernels.py"
    source.parent.mkdir()
    source.write_text("x = 1\n")
    beside = compiled.compiled_folder([source])
    assert beside is not None
    assert beside.parent == source.parent / "__pycache__"

    real = compiled._can_write
    monkeypatch.setattr(compiled, "_can_write", lambda folder: source.parent not in folder.parents and real(folder))
    assert compiled.compiled_folder([source]) == settings.cache_dir() / "numba" / beside.name
    assert (settings.cache_dir() / "numba" / beside.name).is_dir()

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WELLKIT_CACHE", str(tmp_path / "file"))
    assert compiled.compiled_folder([source]) is None


def test_a_changed_kernel_gets_another_folder(tmp_path: Path) -> None:
    # numba would take compiled code from its folder although a kernel in another file has changed.
    sources = [tmp_path / "a_kernels.py", tmp_path / "b_kernels.py"]
    for source in sources:
        source.write_text("x = 1\n")
    before = compiled.compiled_folder(sources)
    sources[1].write_text("x = 2\n")
    assert compiled.compiled_folder(sources) != before
