"""A leaderboard as one HTML page that needs nothing else: no server, no network, nothing foreign but as text.

Everything that varies is in one block of JSON, which the page's script puts into the document as text. The policy in
its head allows this one script and this one style sheet, by their hashes, and nothing from outside.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from wellkit.benchmark.page_data import page_content
from wellkit.benchmark.standings import Table
from wellkit.fetch.disk import write_atomically

_SCRIPTS = ("elements.js", "table.js", "plot.js", "curves.js", "example.js", "provenance.js", "main.js")


def write_page(
    tables: Sequence[Table], path: str | os.PathLike[str], *, title: str = "Leaderboard", made: str = ""
) -> Path:
    """Write the page; it takes its name only when it is whole.

    Args:
        tables: in the order to show; rows too.
        title: of the page.
        made: when and by what it was made, in words; shown at its foot.

    Returns:
        Where it is.

    Raises:
        StorageError: it cannot be written.
    """
    target = Path(path)
    write_atomically(target, page(tables, title=title, made=made).encode("utf-8", "backslashreplace"))
    return target


def page(tables: Sequence[Table], *, title: str = "Leaderboard", made: str = "") -> str:
    """The page's text; see `write_page`."""
    style = _asset("page.css")
    script = '"use strict";\n(() => {\n' + "".join(map(_asset, _SCRIPTS)) + "})();\n"
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    parts = {
        "POLICY": policy,
        "TITLE": escape(title),
        "STYLE": style,
        "DATA": embed(page_content(tables, title=title, made=made)),
        "SCRIPT": script,
    }
    head, *rest = _asset("page.html").split("@@")
    # Every second piece is a name: what is put in is never searched for names itself.
    return head + "".join(parts[piece] if number % 2 == 0 else piece for number, piece in enumerate(rest))


def embed(content: Any) -> str:
    """JSON that cannot end the script element it stands in, nor be taken for markup.

    All but ASCII is escaped (U+2028 and U+2029 among it), and so is every character that HTML gives a meaning.
    """
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return (files("wellkit.benchmark") / "page_files" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
