"""`wellkit.download`: the transfer, and a manifest that tells all about what has arrived."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from wellkit.fetch.download import DownloadReport
from wellkit.fetch.download import download as _transfer
from wellkit.integrity.describing import describe

_P = ParamSpec("_P")


def _described(run: Callable[_P, DownloadReport]) -> Callable[_P, DownloadReport]:
    @functools.wraps(run)
    def download(*args: _P.args, **kwargs: _P.kwargs) -> DownloadReport:
        report = run(*args, **kwargs)
        if not report.dry_run:
            describe(report.directory)
        return report

    return download


download = _described(_transfer)

__all__ = ["DownloadReport", "download"]
