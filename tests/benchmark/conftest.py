"""Scores are tested on the dataset, and with the one thread, that training is tested with."""

from tests.train.conftest import advection, one_thread

__all__ = ["advection", "one_thread"]
