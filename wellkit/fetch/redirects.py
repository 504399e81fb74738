"""Where redirects lead: followed one by one, so that each address is asked with the headers that are meant for it."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from wellkit.errors import HubError

MOST = 10


class Trail:
    """The addresses that one request is sent to in turn.

    Args:
        address: the first of them.
        what: is asked for, for messages.

    Attributes:
        address: the one to ask now. May be a secret.
    """

    def __init__(self, address: str, what: str) -> None:
        self.address = address
        self._what = what
        self._left = MOST

    def follow(self, location: str) -> str:
        """Go on to where an answer from `address` redirects to; returns the new address.

        Raises:
            HubError: that is no web address, or there were too many before it.
        """
        if not self._left:
            raise HubError(f"{self._what}: redirected more than {MOST} times; check HF_ENDPOINT")
        self._left -= 1
        try:
            target = urljoin(self.address, location)
            parts = urlsplit(target)
            is_address = parts.scheme in {"http", "https"} and bool(parts.hostname)
        except ValueError:
            is_address = False
        if not is_address:
            raise HubError(
                f"{self._what}: the server redirects to what is no web address; check HF_ENDPOINT, and tell its owner"
            )
        self.address = target
        return target
