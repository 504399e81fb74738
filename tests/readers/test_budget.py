"""The budget of memory: bounded, in order of arrival, each process's own."""

from __future__ import annotations

import os
import pickle
import threading
import time

from wellkit.readers.budget import Budget


def test_first_come_first_served_within_the_limit() -> None:
    budget = Budget(100)
    order: list[int] = []

    def work(number: int, nbytes: int) -> None:
        with budget.hold(nbytes):
            order.append(number)

    with budget.hold(60):
        threads = []
        for number, nbytes in ((0, 80), (1, 10), (2, 1000)):
            threads.append(threading.Thread(target=work, args=(number, nbytes)))
            threads[-1].start()
            time.sleep(0.05)  # so that they come in this order
        assert order == []  # the second would fit, but it is not its turn
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2]  # the last one is given all there is
    with budget.hold(100):
        pass


def test_an_error_gives_back_what_was_taken() -> None:
    budget = Budget(10)
    for _ in range(3):
        try:
            with budget.hold(10):
                raise KeyError
        except KeyError:
            continue
    with budget.hold(10):
        pass


def test_a_child_does_not_wait_for_its_parents_threads() -> None:
    budget = Budget(10)
    with budget.hold(10):
        child = os.fork()
        if child == 0:
            with budget.hold(10):
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        copy = pickle.loads(pickle.dumps(budget))  # noqa: S301 - our own bytes
        with copy.hold(10):
            assert copy.limit == 10
