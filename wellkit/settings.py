"""Everything wellkit takes from its surroundings: the only module that reads environment variables.

Values are read when asked for, not at import, so that a process can change them and tests need no reload.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from wellkit.errors import ConfigError

DATA_VARIABLE = "WELLKIT_DATA"
CACHE_VARIABLE = "WELLKIT_CACHE"
CACHE_BYTES_VARIABLE = "WELLKIT_CACHE_BYTES"
CATALOG_VARIABLE = "WELLKIT_CATALOG"
INDEX_VARIABLE = "WELLKIT_INDEX"


def _variable(name: str) -> str | None:
    value = os.environ.get(name, "").strip()  # noqa: TID251 - this is the one place
    return value or None


def data_dir() -> Path:
    """Where downloaded datasets live: `$WELLKIT_DATA`, else the user's data directory."""
    chosen = _variable(DATA_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_data_dir("wellkit", appauthor=False))


def cache_dir() -> Path:
    """Where caches live: `$WELLKIT_CACHE`, else the user's cache directory."""
    chosen = _variable(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("wellkit", appauthor=False))


def cache_limit() -> int | None:
    """Bytes of disk that copies of streamed shards may take: `$WELLKIT_CACHE_BYTES` (200GB, 1TiB, 123456), or None.

    Raises:
        ConfigError: it is set to something else.
    """
    chosen = _variable(CACHE_BYTES_VARIABLE)
    if chosen is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGTP])(I?)B?|B)?", chosen.upper())
    limit = (
        0 if match is None else int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGTP".find(match[2] or " "))
    )
    if limit < 1:
        raise ConfigError(f"{CACHE_BYTES_VARIABLE}={chosen!r} is no size; write for example 200GB or 1TiB")
    return limit


def catalog_paths() -> tuple[Path, ...]:
    """Card files and folders of cards named by `$WELLKIT_CATALOG` (separated as in `$PATH`)."""
    chosen = _variable(CATALOG_VARIABLE)
    return tuple(Path(part).expanduser() for part in chosen.split(os.pathsep) if part) if chosen else ()


def index_location() -> str | None:
    """The folder or address that `$WELLKIT_INDEX` names: indexes of published datasets, by the datasets' names."""
    return _variable(INDEX_VARIABLE)


def hub_offline() -> bool:
    """Whether `$HF_HUB_OFFLINE` forbids the network; same reading as huggingface_hub's."""
    return (_variable("HF_HUB_OFFLINE") or "").upper() in {"1", "ON", "YES", "TRUE"}


def hub_endpoint() -> str:
    """The Hub's address: `$HF_ENDPOINT`, else https://huggingface.co. No trailing slash."""
    return (_variable("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def hub_cache_dir() -> Path | None:
    """Where huggingface_hub's client keeps what it got: `$HF_HUB_CACHE`, `$HF_HOME/hub`, or None for its default."""
    if chosen := _variable("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    home = _variable("HF_HOME")
    return Path(home).expanduser() / "hub" if home else None


def stall_timeout() -> float | None:
    """Seconds without a byte after which a connection is given up: `$HF_HUB_DOWNLOAD_TIMEOUT`, or None.

    Raises:
        ConfigError: it is set to something else.
    """
    chosen = _variable("HF_HUB_DOWNLOAD_TIMEOUT")
    if chosen is None:
        return None
    try:
        seconds = float(chosen)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"HF_HUB_DOWNLOAD_TIMEOUT={chosen!r} is no time; write whole seconds, for example 30")
    return seconds


def has_proxy(scheme: str, host: str) -> bool:
    """Whether `$HTTPS_PROXY` and its like, or the system's settings, put a proxy before a host (with port)."""
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    return (scheme in proxies or "all" in proxies) and not proxy_bypass(host)


def process_number() -> int:
    """The number of this process among those that torchrun started: `$RANK`, else 0."""
    chosen = _variable("RANK") or "0"
    return int(chosen) if chosen.isdigit() else 0


def allow_deterministic_products() -> None:
    """Let cuBLAS give the same numbers every time, unless `$CUBLAS_WORKSPACE_CONFIG` says something already.

    It looks there when it is first used; without it torch refuses deterministic matrix products on a GPU.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # noqa: TID251 - this is the one place
