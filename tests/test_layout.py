"""The house itself: packages, links, guards, what importing costs."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAPPED = {"schemas": "wellkit.schemas", "catalog": "wellkit.catalog", "cli": "wellkit.cli"}


def packages_on_disk() -> set[str]:
    found = set()
    for top in ("wellkit", *MAPPED):
        for init in (ROOT / top).rglob("__init__.py"):  # rglob does not follow the links below wellkit/
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join((MAPPED.get(parts[0], parts[0]), *parts[1:])))
    return found


def test_packages_listed_are_packages_on_disk() -> None:
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == packages_on_disk()


@pytest.mark.parametrize("name", sorted(MAPPED))
def test_links_point_at_the_top_level_folders(name: str) -> None:
    link = ROOT / "wellkit" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name


@pytest.mark.parametrize("name", sorted(MAPPED))
def test_top_level_folders_refuse_their_bare_name(name: str) -> None:
    run = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode != 0
    assert f"import this package as wellkit.{name}" in run.stderr


def test_public_names_resolve() -> None:
    wellkit = importlib.import_module("wellkit")
    for name in wellkit.__all__:
        assert getattr(wellkit, name) is not None


@pytest.mark.parametrize("code", ["import wellkit", "import sys; sys.argv = ['wellkit', 'list']\nfrom wellkit.cli.app import main\nmain()"])
def test_imports_stay_light(code: str) -> None:
    heavy = ["torch", "numba", "h5py", "zarr", "xarray", "pyarrow", "jax", "scipy", "matplotlib", "aiohttp"]
    check = (
        "\nimport sys\nloaded = [m for m in " + repr(heavy) + " if m in sys.modules]\nsys.stderr.write('loaded: ' + ','.join(loaded))"
    )
    wrapped = "import atexit\ndef report():\n    import sys\n    loaded = [m for m in " + repr(heavy) + " if m in sys.modules]\n    sys.stderr.write('loaded:' + ','.join(loaded) + ';')\natexit.register(report)\n" + code
    del check
    run = subprocess.run([sys.executable, "-c", wrapped], capture_output=True, text=True, check=True)
    assert "loaded:;" in run.stderr
