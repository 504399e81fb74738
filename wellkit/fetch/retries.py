"""How often, and how patiently, an unreachable source is asked again."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity

from wellkit.errors import WellkitError
from wellkit.storage import http_status, network_error

ATTEMPTS = 10  # with these waits about a minute and a half without an answer
FIRST_WAIT = 0.5  # seconds; doubles
LONGEST_WAIT = 20.0
LONGEST_RETRY_AFTER = 300.0  # a server that wants more is told of as an error instead of a silent hour
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})

_logger = logging.getLogger(__name__)
BACKOFF: tenacity.wait.wait_base = tenacity.wait_exponential(
    multiplier=FIRST_WAIT, max=LONGEST_WAIT
) + tenacity.wait_random(0, FIRST_WAIT)
Result = TypeVar("Result")


def is_transient(error: BaseException) -> bool:
    """Whether asking again may help: connections that fail or break, and statuses that say "later"."""
    if isinstance(error, WellkitError) or type(error).__name__ == "OfflineModeIsEnabled":
        return False
    status = http_status(error)
    if status is not None:
        return status in TRANSIENT_STATUS and (retry_after(error) or 0.0) <= LONGEST_RETRY_AFTER
    return network_error(error) is not None and not _is_untrusted(error)


def _is_untrusted(error: BaseException | None) -> bool:
    """Whether it is the server's certificate that is wrong: it will be the next time."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def retry_after(error: BaseException | None) -> float | None:
    """Seconds from a `Retry-After` header, in either of its forms; None where there is none that can be read."""
    headers = getattr(getattr(error, "response", error), "headers", None) or {}  # aiohttp's errors have their own
    text = headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def patiently(
    action: Callable[[], Result],
    *,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] | None = None,
    backoff: tenacity.wait.wait_base | None = None,
) -> Result:
    """Run `action` again while its failures are transient; the last failure is raised as it is.

    Args:
        action: what to do; it has to begin afresh each time.
        attempts: at most so often.
        sleep: waits so many seconds; may raise to give up (an interrupted download does).
        backoff: how long to wait where the server does not say; by default `BACKOFF`.
    """

    def wait(state: tenacity.RetryCallState) -> float:
        asked = retry_after(state.outcome.exception() if state.outcome else None)
        return asked if asked is not None else (backoff or BACKOFF)(state)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=tenacity.stop_after_attempt(attempts),
        wait=wait,
        sleep=sleep if sleep is not None else tenacity.nap.sleep,
        before_sleep=tenacity.before_sleep_log(_logger, logging.DEBUG),
        reraise=True,
    )
    return retrying(action)
