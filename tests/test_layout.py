"""The house itself: packages, links, guards, what importing costs."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
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


HEAVY = (
    "torch",
    "numba",
    "h5py",
    "zarr",
    "xarray",
    "pyarrow",
    "jax",
    "scipy",
    "matplotlib",
    "aiohttp",
    "huggingface_hub",
)
REPORT_AT_EXIT = """
import atexit, sys
atexit.register(lambda: sys.stderr.write("loaded:" + ",".join(name for name in {heavy!r} if name in sys.modules) + ";"))
"""


@pytest.mark.parametrize(
    "code",
    [
        "import wellkit",
        "import wellkit; wellkit.catalog.names()",
        "sys.argv = ['wellkit', 'list']\nfrom wellkit.cli.app import main\nmain()",
        "sys.argv = ['wellkit', '--help']\nfrom wellkit.cli.app import main\nmain()",
    ],
)
def test_imports_stay_light(code: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", REPORT_AT_EXIT.format(heavy=HEAVY) + code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "loaded:;" in run.stderr


def test_only_settings_reads_the_environment() -> None:
    readers = [
        path
        for top in ("wellkit", *MAPPED)
        for path in (ROOT / top).rglob("*.py")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    ]
    assert readers == [ROOT / "wellkit" / "settings.py"]


def test_no_file_grows_past_400_lines_without_saying_why() -> None:
    for top in ("wellkit", "tests", "benchmarks", *MAPPED):
        for path in (ROOT / top).rglob("*.py"):
            lines = path.read_text().splitlines()
            assert len(lines) <= 400 or "400 lines" in "\n".join(lines[:12]), f"{path} has {len(lines)} lines"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    kept = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "quickstart", "node_modules")
    shutil.copytree(ROOT, source, symlinks=True, ignore=kept)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_holds_every_module_card_schema_and_page(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    for top in ("wellkit", *MAPPED):
        for path in (ROOT / top).rglob("*"):
            if path.suffix in {".py", ".yaml", ".json", ".html", ".css", ".js"} and "__pycache__" not in path.parts:
                parts = path.relative_to(ROOT).parts
                installed = parts if parts[0] == "wellkit" else ("wellkit", *parts)
                assert "/".join(installed) in inside
    assert "wellkit/py.typed" in inside
    assert not any(name.startswith(("schemas/", "catalog/", "cli/", "tests/")) for name in inside)
