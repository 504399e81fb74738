"""When and where kernels are compiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wellkit import settings
from wellkit.generation import compiling


def test_nothing_is_compiled_before_it_is_needed() -> None:
    code = (
        "import sys, wellkit.generation.registry as r; r.get('turbulent_radiative_layer_2D').settings({});"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_compiled_code_is_kept_beside_the_package_else_in_the_users_cache_else_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = Path(compiling.__file__).parent
    find = compiling.compiled_folder.__wrapped__
    beside = find()
    assert beside is not None
    assert beside.parent == package / "__pycache__"

    real = compiling._can_write
    monkeypatch.setattr(compiling, "_can_write", lambda folder: package not in folder.parents and real(folder))
    assert find() == settings.cache_dir() / "numba" / beside.name
    assert (settings.cache_dir() / "numba" / beside.name).is_dir()

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WELLKIT_CACHE", str(tmp_path / "file"))
    assert find() is None


def test_a_changed_kernel_gets_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # numba would take compiled code from its folder although a kernel in another file has changed.
    for source in Path(compiling.__file__).parent.glob("*_kernels.py"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compiling.py"))
    before = compiling._sources_digest()
    with (tmp_path / "euler_kernels.py").open("a") as file:
        file.write("# changed\n")
    assert compiling._sources_digest() != before
