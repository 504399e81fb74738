"""Training configurations: files, overrides, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from wellkit.errors import ConfigError, DataNotFoundError, DocumentVersionError
from wellkit.schemas.training import DEFAULT_EPOCHS, TrainConfig
from wellkit.train.config import load_config

SCHEMA = 'schema = "wellkit/train-config/1"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_file_values_and_overrides_in_that_order(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        SCHEMA
        + 'dataset = "a"\nepochs = 3\nlearning_rate = 0.1\nseed = 1\n'
        + "[model_arguments]\nmodes1 = 8\nmodes2 = 8\n",
    )
    config = load_config(
        path,
        values={"dataset": "b", "seed": None, "epochs": 4},
        overrides=[
            "epochs=5",
            "model_arguments.modes2=12",
            "device=cpu",
            "model_arguments.gradient_checkpointing=true",
        ],
    )
    assert (config.dataset, config.seed, config.epochs, config.learning_rate) == ("b", 1, 5, 0.1)
    assert config.model_arguments == {"modes1": 8, "modes2": 12, "gradient_checkpointing": True}
    assert config.device == "cpu"


def test_arguments_of_another_model_are_not_taken_over(tmp_path: Path) -> None:
    path = write(tmp_path, SCHEMA + 'dataset = "a"\nmodel = "fno"\n[model_arguments]\nmodes1 = 8\n')
    assert load_config(path, values={"model": "unet_convnext"}).model_arguments == {}
    assert load_config(path, values={"model": "fno"}).model_arguments == {"modes1": 8}


def test_a_budget_is_always_there() -> None:
    assert TrainConfig.create("a").epochs == DEFAULT_EPOCHS
    assert TrainConfig.create("a", hours=0.5).epochs is None
    assert TrainConfig.create("a", hours=0.5, epochs=3).epochs == 3


def test_a_configuration_survives_its_file() -> None:
    config = TrainConfig.create("a", data=Path("somewhere"), hours=1, model_arguments={"modes1": 4, "x": True})
    assert TrainConfig.parse(config.to_mapping(), source="test") == config
    assert config.data == "somewhere"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lerning_rate=1e-3", "unknown key 'lerning_rate'.*Did you mean learning_rate"),
        ("epochs=many", "'epochs'.*found 'many'"),
        ("epochs=0", "'epochs'.*greater than 0"),
        ("learning_rate=-1", "'learning_rate'.*greater than 0"),
        ("normalization=z-score", "'normalization'.*'zscore', 'rms' or 'none'"),
        ("epochs", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("epochs.x=3", "epochs is a value, not a table"),
        ("model_arguments.modes1=[1, 2]", "model_arguments"),
    ],
)
def test_bad_overrides_are_refused(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(values={"dataset": "a", "epochs": 2}, overrides=[override])


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="no such configuration file"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match=r"run\.toml: not a TOML file"):
        load_config(write(tmp_path, "dataset = \n"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    with pytest.raises(DocumentVersionError, match=r"no 'schema:' line"):
        load_config(write(tmp_path, 'dataset = "a"\n'))
    with pytest.raises(DocumentVersionError, match=r"version unknown here.*upgrade"):
        load_config(write(tmp_path, 'schema = "wellkit/train-config/99"\ndataset = "a"\n'))
    with pytest.raises(ConfigError, match="key 'dataset' is missing"):
        load_config(write(tmp_path, SCHEMA))


def test_the_guide_lists_every_key_with_its_default() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "train.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*) \|$", page, re.MULTILINE)
    listed = {key: (default, meaning) for key, default, meaning in rows if key in TrainConfig.model_fields}
    assert list(listed) == [key for key in TrainConfig.model_fields if key != "schema_"]
    config = TrainConfig.create("a").to_mapping()
    for key, (default, meaning) in listed.items():
        assert meaning == TrainConfig.model_fields[key].description
        if key == "dataset":
            continue
        value = config.get(key)
        written = "" if value is None else value if isinstance(value, str) else json.dumps(value)
        assert default.split(" ")[0] == (f"`{written}`" if written else ""), key
