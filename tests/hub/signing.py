"""Signed links to the store, as object stores and content networks make them: they name when they end."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote, urlencode

Style = Literal["s3", "cdn"]
_FORMAT = "%Y%m%dT%H%M%SZ"
SECRET = "secret-of-this-link"  # in every signature: no message and no log may hold it


class Signer:
    """Makes links and tells whether they still hold.

    Attributes:
        style: "s3" names when the link was made and for how many seconds it holds, "cdn" when it ends.
        life: seconds that new links hold.
    """

    def __init__(self) -> None:
        self.style: Style = "s3"
        self.life = 3600
        self._key = secrets.token_bytes(16)

    def sign(self, path: str) -> str:
        """The path with a signed query."""
        now = int(time.time())
        if self.style == "s3":
            terms = {
                "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                "X-Amz-Date": datetime.fromtimestamp(now, UTC).strftime(_FORMAT),
                "X-Amz-Expires": str(self.life),
                "X-Amz-SignedHeaders": "host",
                "X-Amz-Signature": f"{SECRET}-{self._mark(path, now + self.life)}",
            }
        else:
            end = now + self.life
            terms = {"Expires": str(end), "Signature": f"{SECRET}-{self._mark(path, end)}", "Key-Pair-Id": "K1"}
        return f"{quote(path)}?{urlencode(terms)}"

    def refusal(self, path: str, query: Mapping[str, str]) -> str | None:
        """Why a request for a path is refused; None if it is not."""
        try:
            if "X-Amz-Date" in query:
                made = datetime.strptime(query["X-Amz-Date"], _FORMAT).replace(tzinfo=UTC).timestamp()
                end, mark = int(made) + int(query["X-Amz-Expires"]), query["X-Amz-Signature"]
            else:
                end, mark = int(query["Expires"]), query["Signature"]
        except (KeyError, ValueError):
            return "Access Denied"
        if not hmac.compare_digest(mark, f"{SECRET}-{self._mark(path, end)}"):
            return "SignatureDoesNotMatch"
        return None if time.time() < end else "Request has expired"

    def revoke(self) -> None:
        """No link made so far holds any longer, whatever it says."""
        self._key = secrets.token_bytes(16)

    def _mark(self, path: str, end: int) -> str:
        return hmac.new(self._key, f"{path} {end}".encode(), hashlib.sha256).hexdigest()
