"""The actions of one download, on several threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from wellkit.fetch.disk import digest_file
from wellkit.fetch.manifest import Record
from wellkit.fetch.plan import TRANSFERS, Action, ActionKind
from wellkit.fetch.transfer import Interrupted, Progress, Source, fetch


class Silent:
    """Progress that nobody follows."""

    def planned(self, n_files: int, n_bytes: int) -> None: ...

    def started(self, file: object) -> None: ...

    def advanced(self, file: object, n_bytes: int) -> None: ...

    def finished(self, file: object) -> None: ...


class Run:
    """Carries out the actions of one download; the first failure stops the others.

    Args:
        sources: asked in this order; the next one where one fails.
        record: is told of every file that is right.
        commit: of the source that the files belong to.
        progress: is told of every byte.
    """

    def __init__(self, sources: Sequence[Source], record: Record, commit: str | None, progress: Progress) -> None:
        self._sources = sources
        self._record = record
        self._commit = commit
        self._progress = progress
        self._stop = threading.Event()

    def run(self, actions: Sequence[Action], jobs: int) -> tuple[Action, ...]:
        """Carry out `actions`; returns them as they turned out.

        Raises:
            WellkitError: of the file that failed first.
        """
        done: dict[str, Action] = {action.file.path: action for action in actions}
        waiting = [action for action in actions if action.kind is not ActionKind.keep]
        certain = [action.file.size for action in waiting if action.kind in TRANSFERS]
        self._progress.planned(len(certain), sum(certain))
        pool = ThreadPoolExecutor(max_workers=min(jobs, max(1, len(waiting))), thread_name_prefix="wellkit-fetch")
        futures: list[Future[Action]] = [pool.submit(self._carry_out, action) for action in waiting]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Also on Ctrl-C: running transfers see the event, keep what has arrived, and end.
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self._record.save()
        failures = [error for future in futures if not future.cancelled() and (error := future.exception())]
        # Transfers that were only given up because another failed are not what the user has to hear about.
        for error in sorted(failures, key=lambda error: isinstance(error, Interrupted)):
            raise error
        for future in futures:
            action = future.result()
            done[action.file.path] = action
        return tuple(done.values())

    def _carry_out(self, action: Action) -> Action:
        try:
            return self._carry_out_unguarded(action)
        except BaseException:
            self._stop.set()  # here, so that this thread does not take up the next file before anybody noticed
            raise

    def _carry_out_unguarded(self, action: Action) -> Action:
        file, target = action.file, self._record.directory / action.file.path
        if action.kind is ActionKind.check:
            digests = digest_file(target, file, stopped=self._stop.is_set)
            self._stop_if_asked(action)
            if digests.fit(file):
                self._record.add(file, digests, self._commit)
                told = "its hash is right" if file.hash.is_published else "unverified, first seen: no hash is published"
                return action.become(ActionKind.keep, f"checked: {told}")
            action = action.become(ActionKind.replace, "checked: its hash is wrong")
            self._progress.planned(1, file.size)
        self._stop_if_asked(action)
        digests, way = fetch(
            self._sources,
            file,
            target,
            progress=self._progress,
            stopped=self._stop.is_set,
            sleep=lambda seconds: self._pause(action, seconds),
        )
        self._record.add(file, digests, self._commit)
        if not file.hash.is_published:
            way = "; ".join(filter(None, ("unverified, first seen: no hash is published", way)))
        return action.become(action.kind, f"{action.reason}; {way}") if way else action

    def _stop_if_asked(self, action: Action) -> None:
        if self._stop.is_set():
            raise Interrupted(f"{action.file.path}: download interrupted")

    def _pause(self, action: Action, seconds: float) -> None:
        """Wait before another attempt, unless the download is given up meanwhile."""
        self._stop.wait(seconds)
        self._stop_if_asked(action)
