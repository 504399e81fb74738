"""`wellkit train`, `evaluate` and `leaderboard` as a user meets them: a process, two streams, an exit status."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.commands import Command
from tests.train.advection import NAME

_SMALL = ("--set", "model_arguments.hidden_channels=6", "--set", "model_arguments.lifting_channels=8")


def test_from_training_to_the_board(base: Path, tmp_path: Path, wellkit: Command) -> None:
    config = tmp_path / "run.toml"
    config.write_text(f'schema = "wellkit/train-config/1"\ndataset = "{NAME}"\nepochs = 9\nseed = 2\n')
    report = wellkit.told("train", "--config", config, "--data", base, "--epochs", 2, "--to", tmp_path / "run", *_SMALL)
    assert (report["epochs"], report["seed"], report["dataset"]) == (2, 2, NAME)

    table = wellkit(
        "evaluate", tmp_path / "run", "--out", tmp_path / "fno.json",
        "--picture", tmp_path / "a.png", "--gif", tmp_path / "a.gif", "--field", "tracer",
    )  # fmt: skip
    assert table.returncode == 0, table.stderr
    assert [line.split()[0] for line in table.stdout.splitlines() if line[1:2].isalpha()][-4:] == [
        "tracer",
        "velocity_x",
        "velocity_y",
        "all",
    ]
    assert "12 windows" in table.stderr
    with Image.open(tmp_path / "a.png") as png, Image.open(tmp_path / "a.gif") as gif:
        assert (png.format, gif.format) == ("PNG", "GIF")

    result = wellkit.told(
        "evaluate", "persistence", "--dataset", NAME, "--data", base, "--out", tmp_path / "persistence.json"
    )
    assert result == json.loads((tmp_path / "persistence.json").read_text())
    assert (result["protocol"]["name"], result["protocol"]["eps"]) == ("wellkit-1", 1e-7)

    board = tmp_path / "board.jsonl"
    files = (tmp_path / "fno.json", tmp_path / "persistence.json")
    assert len(wellkit.told("leaderboard", "add", *files, "--board", board)["new"]) == 2
    assert len(wellkit.told("leaderboard", "add", *files, "--board", board)["replaced"]) == 2
    (table,) = wellkit.told("leaderboard", "show", "--board", board)
    assert {row["model"]: row["kind"] for row in table["rows"]} == {"fno": "self-reported", "persistence": "baseline"}
    shown = wellkit("leaderboard", "show", "--board", board)
    assert "persistence" in shown.stdout
    assert f"{result['one_step']['mean']:.4g}" in shown.stdout


def test_training_tells_of_every_epoch_on_stderr(base: Path, tmp_path: Path, wellkit: Command) -> None:
    done = wellkit("train", NAME, "--data", base, "--epochs", 2, "--to", tmp_path / "run", *_SMALL)
    assert done.returncode == 0
    assert "best validation VRMSE" in done.stdout
    for epoch in (1, 2):
        assert f"epoch {epoch}: training loss" in done.stderr
    assert "wellkit evaluate" in done.stderr


def test_bad_input_is_one_line(base: Path, tmp_path: Path, wellkit: Command) -> None:
    to = ("--data", base, "--to", tmp_path / "run")
    assert "Did you mean learning_rate" in wellkit.refused("train", NAME, *to, "--set", "lerning_rate=1")
    assert "Did you mean fno" in wellkit.refused("train", NAME, *to, "--model", "fnoo")
    assert "no such folder" in wellkit.refused("train", "advektion", *to)
    assert "not divisible" in wellkit.refused(
        "train", NAME, *to, "--model", "unet_convnext", "--set", "model_arguments.stages=5"
    )
    (tmp_path / "file").write_text("")
    assert "cannot make run folder" in wellkit.refused("train", NAME, "--data", base, "--to", tmp_path / "file" / "run")
    assert "no such run or checkpoint folder" in wellkit.refused("evaluate", tmp_path / "nothing")
    assert "is a file; a run or checkpoint is a folder" in wellkit.refused("evaluate", tmp_path / "file")
    (tmp_path / "model.pt").write_bytes(b"")
    assert "pickle files are refused" in wellkit.refused("evaluate", tmp_path / "model.pt")
    assert "must end in .png" in wellkit.refused("evaluate", "mean", "--dataset", NAME, "--picture", tmp_path / "a.jpg")
    # before anything is scored: no result is written
    drawn = ("evaluate", "mean", "--dataset", NAME, "--data", base, "--out", tmp_path / "r.json")
    picture = ("--picture", tmp_path / "a.png")
    assert "trajectory 99 is out of range" in wellkit.refused(*drawn, *picture, "--trajectory", 99)
    assert "Did you mean tracer" in wellkit.refused(*drawn, *picture, "--field", "tracr")
    assert not (tmp_path / "r.json").exists()
    (tmp_path / "folder").mkdir()
    for target, why in ((tmp_path / "file" / "a.json", "is a file, not a folder"), (tmp_path / "folder", "directory")):
        # told before the scoring, which would be lost: the model is not even looked for
        assert why in wellkit.refused("evaluate", tmp_path / "nothing", "--out", target)
    assert "give a file of JSON lines" in wellkit.refused("leaderboard", "show", "--board", tmp_path / "folder")
    assert "needs more memory than there is" in wellkit.refused(
        "train", NAME, *to, "--set", "model_arguments.hidden_channels=100000000"
    )
    assert "'seed': Input should be less than" in wellkit.refused("train", NAME, *to, "--seed", 2**63)
    assert "no such leaderboard" in wellkit.refused("leaderboard", "show", "--board", tmp_path / "none.jsonl")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments", [("train",), ("evaluate",), ("leaderboard", "add"), ("leaderboard", "show", "x"), ("train", "--epoch")]
)
def test_wrong_usage_is_status_two(arguments: tuple[str, ...], wellkit: Command) -> None:
    assert wellkit(*arguments).returncode == 2


@pytest.mark.parametrize("command", [("train",), ("evaluate",), ("leaderboard", "add"), ("leaderboard", "show")])
def test_help_ends_with_an_example(command: tuple[str, ...], wellkit: Command) -> None:
    done = wellkit(*command, "--help")
    assert done.returncode == 0
    assert f"Example: wellkit {' '.join(command)} " in " ".join(done.stdout.split())
    assert "--format" in done.stdout


def test_help_of_the_group_ends_with_an_example(wellkit: Command) -> None:
    assert "Example: wellkit leaderboard show --board" in wellkit("leaderboard", "--help").stdout


def test_warnings_are_one_line_without_a_place_in_the_source(wellkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = wellkit("train", "turbulent_radiative_layer_2D")
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: turbulent_radiative_layer_2D (train) is not in ")
    assert error.startswith("error: ")


def test_what_needs_no_torch_loads_none(tmp_path: Path) -> None:
    (tmp_path / "board.jsonl").write_text("")
    for arguments in (["train", "--help"], ["leaderboard", "show", "--board", str(tmp_path / "board.jsonl")]):
        code = (
            f"import sys\nsys.argv = ['wellkit', *{arguments!r}]\n"
            "from wellkit.cli.app import main\ntry:\n    main()\n"
            "finally:\n    sys.stderr.write('torch' if 'torch' in sys.modules else 'light')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert done.stderr.endswith("light")


@pytest.mark.parametrize("command", [("train", NAME), ("evaluate", "persistence", "--dataset", NAME), ("quickstart",)])
def test_a_missing_library_is_one_line(command: tuple[str, ...]) -> None:
    code = (
        f"import sys\nsys.modules['torch'] = None\nsys.argv = ['wellkit', *{command!r}]\n"
        "from wellkit.cli.app import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: training and scoring models needs torch")
    assert "pip install 'wellkit[train]'" in done.stderr
    assert done.stderr.count("\n") == 1
