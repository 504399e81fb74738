"""What the training tests share: one thread (tiny tensors gain nothing from more) and one tiny dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.train.advection import make_advection


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def advection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base folder of the advection dataset; tests must not change it."""
    return make_advection(tmp_path_factory.mktemp("advection"))
