"""No signature in the log: the libraries below write down whole addresses, and a signed one opens a file to anybody."""

from __future__ import annotations

import logging

from wellkit.storage import without_secrets

_LOGGERS = (
    "httpx",
    "httpx2",
    *(f"{core}.{part}" for core in ("httpcore", "httpcore2") for part in ("connection", "http11", "http2", "proxy")),
    "huggingface_hub.utils._http",
    "huggingface_hub.file_download",
    "fsspec.http",
)


class _WithoutSecrets(logging.Filter):
    """Cuts queries and credentials out of addresses in messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        told = without_secrets(text)
        if told != text:
            record.msg, record.args = told, ()
        return True


_FILTER = _WithoutSecrets()


def keep_secrets() -> None:
    """See to it, from now on, for all of the process."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
