"""Trajectories simulated side by side in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

import numpy as np

from wellkit.errors import DataValueError, GenerationError
from wellkit.generation import registry
from wellkit.generation.generator import Run, Setting, SimulationGenerator
from wellkit.generation.plan import Trajectory

Fields = dict[str, np.ndarray]


def usable_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def simulate_all(
    generator: SimulationGenerator, run: Run, trajectories: Sequence[Trajectory], jobs: int
) -> Generator[tuple[Trajectory, Fields], None, None]:
    """Simulate trajectories, `jobs` at a time, and yield each in the given order; a few wait in memory at most.

    Raises:
        DataValueError: a solver lost its solution; names the setting and the trajectory.
        GenerationError: a worker process died.
    """
    if jobs == 1:
        for trajectory in trajectories:
            setting = run.settings[trajectory.setting]
            with _explained(generator, setting, trajectory):
                yield trajectory, _simulate(generator, setting, run, trajectory)
        return
    generator.prepare()  # compiled once here, then taken from disk by the workers
    context = multiprocessing.get_context("spawn")  # forking a process that has threads is not safe
    executor = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)
    pending: deque[tuple[Trajectory, Future[Fields]]] = deque()
    queue = iter(trajectories)
    finished = False
    try:
        while True:
            while len(pending) < 2 * jobs and (following := next(queue, None)) is not None:
                setting = run.settings[following.setting]
                pending.append((following, executor.submit(_work, generator.name, setting, run, following)))
            if not pending:
                break
            trajectory, future = pending.popleft()
            with _explained(generator, run.settings[trajectory.setting], trajectory):
                fields = future.result()
            yield trajectory, fields
        finished = True
    finally:
        if not finished:
            # Nobody waits for these results: an interrupted run has to end now, not minutes later.
            for process in list((getattr(executor, "_processes", None) or {}).values()):
                process.terminate()
        executor.shutdown(wait=True, cancel_futures=True)


def _simulate(generator: SimulationGenerator, setting: Setting, run: Run, trajectory: Trajectory) -> Fields:
    return generator.simulate(setting, run.resolution, run.steps, trajectory.random(run.seed))


def _work(name: str, setting: Setting, run: Run, trajectory: Trajectory) -> Fields:
    return _simulate(registry.get(name), setting, run, trajectory)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it (a killed parent cannot tell its workers to stop)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def follow() -> None:
            wait([sentinel])
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


class _explained:
    """Says which trajectory went wrong, and why a pool broke."""

    def __init__(self, generator: SimulationGenerator, setting: Setting, trajectory: Trajectory) -> None:
        values = ", ".join(f"{name}={value}" for name, value in setting.parameters.items())
        self._what = f"{generator.name}, {values}, trajectory {trajectory.index}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DataValueError):
            raise DataValueError(f"{self._what}: {error}") from error
        if isinstance(error, BrokenProcessPool):
            raise GenerationError(
                f"{self._what}: a worker process died; either memory ran out (try fewer jobs, a lower "
                "resolution or fewer steps), or a script calls wellkit.generate outside "
                "`if __name__ == '__main__':`"
            ) from error
