"""Scores are tested on the dataset, with the one thread, and by the command, that training is tested with."""

from tests.cli.conftest import wellkit
from tests.train.conftest import advection, one_thread

__all__ = ["advection", "one_thread", "wellkit"]
