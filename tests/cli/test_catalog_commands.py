"""The commands as a user meets them: a process, two streams, an exit status."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.catalog.builders import write_card
from wellkit import catalog

_RUN = "from wellkit.cli.app import main; main()"


def wellkit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _RUN, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_list_prints_a_line_for_every_dataset() -> None:
    done = wellkit("list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["name", "title"]
    assert [line.split()[0] for line in lines[1:]] == catalog.names()
    line = next(line for line in lines if line.startswith("turbulent_radiative_layer_2D"))
    assert line.split()[-8:-1] == ["2D", "128×384", "90", "101", "7.15", "GB", "1"]
    assert "wellkit info NAME" in done.stderr


def test_list_as_json() -> None:
    done = wellkit("list", "--collection", "the_well", "--kind", "simulation", "--format", "json")
    content = json.loads(done.stdout)
    assert done.returncode == 0
    assert done.stderr == ""
    assert [entry["name"] for entry in content] == catalog.names()
    assert content[0] == {
        "name": "acoustic_scattering_discontinuous",
        "title": "Acoustic waves across one sharp interface",
        "kind": "simulation",
        "collection": "the_well",
        "n_spatial_dims": 2,
        "resolution": [256, 256],
        "trajectories": 2000,
        "steps": [102],
        "channels": 3,
        "bytes": 161480704000,
        "errata": {"info": 2},
    }


def test_list_of_nothing() -> None:
    done = wellkit("list", "--collection", "none")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no dataset matches" in done.stderr


def test_wrong_usage_exits_with_2() -> None:
    assert wellkit("list", "--kind", "film").returncode == 2
    assert wellkit("info").returncode == 2


def test_list_is_light() -> None:
    """None of the heavy libraries may be imported to print a list."""
    script = (
        "import sys\nsys.argv = ['wellkit', 'list']\nfrom wellkit.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'numba', 'h5py', 'numpy') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "[]"


def test_search() -> None:
    done = wellkit("search", "magneto", "turbulence")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["MHD_256", "MHD_64"]
    found = json.loads(wellkit("search", "chebyshev", "--format", "json").stdout)
    assert [entry["name"] for entry in found] == ["rayleigh_benard"]
    nothing = wellkit("search", "unicorn")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "unicorn" in nothing.stderr


def test_info_prints_the_whole_card() -> None:
    done = wellkit("info", "viscoelastic_instability")
    assert done.returncode == 0
    for part in (
        r"\nabla\cdot u = 0",
        "20/60 frames",
        "xx xy yx yy",
        "Weissenberg number",
        "no slip",
        "valid 22 trajectories in 7 files",
        "polymathic-ai/viscoelastic_instability",
        "C_xy",
        "CC-BY-4.0",
        "https://doi.org/10.1017/jfm.2024.50",
        "superseded",
        "goes by the name viscoelastic_instability_v2",
    ):
        assert part in done.stdout, part
    problems = done.stdout.partition("Known problems")[2]
    assert problems.index("warning") < problems.index("info")


def test_info_as_json_is_the_card() -> None:
    done = wellkit("info", "MHD_256", "--format", "json")
    assert json.loads(done.stdout) == json.loads(json.dumps(catalog.get("MHD_256").to_mapping()))


@pytest.mark.parametrize("name", catalog.names())
def test_info_can_show_every_card(name: str) -> None:
    from rich.console import Console

    from wellkit.cli.describe import card_view

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(card_view(catalog.get(name)))
    shown = console.export_text()
    assert name in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert all(erratum.id in shown for erratum in catalog.get(name).errata)


def test_info_shows_what_is_conserved() -> None:
    shown = wellkit("info", "euler_multi_quadrants_periodicBC").stdout
    section = shown.partition("\nConserved\n")[2].partition("\n\n")[0]
    for quantity, field in (("energy", "energy"), ("mass", "density"), ("momentum", "momentum")):
        assert re.search(rf"^ *{quantity} +total of {field} +conservation law", section, re.MULTILINE)
    assert "\nConserved\n" not in wellkit("info", "turbulent_radiative_layer_2D").stdout


def test_an_unknown_dataset_is_one_line_with_near_matches() -> None:
    done = wellkit("info", "turbulent_radiative_2D")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: no dataset is called 'turbulent_radiative_2D'")
    assert "Did you mean turbulent_radiative_layer_2D" in done.stderr


def test_a_users_own_card_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(tmp_path / "mine.yaml")
    monkeypatch.setenv("WELLKIT_CATALOG", str(tmp_path))
    assert "pendulum_waves" in wellkit("list", "--collection", "mine").stdout
    assert "Waves in a row of pendulums" in wellkit("info", "pendulum_waves").stdout


def test_a_users_broken_card_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_card(tmp_path / "mine.yaml", titel="Typo")
    monkeypatch.setenv("WELLKIT_CATALOG", str(tmp_path))
    done = wellkit("list")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {path}: unknown key 'titel'. Did you mean title or time?\n"


@pytest.mark.parametrize("command", ["list", "search", "info"])
def test_help_ends_with_an_example(command: str) -> None:
    done = wellkit(command, "--help")
    assert done.returncode == 0
    assert done.stdout.split("─╯")[-1].strip().startswith(f"Example: wellkit {command}")
