"""Result files. Needs no torch, so that boards can be read and checked anywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from wellkit.errors import DataNotFoundError, DocumentError
from wellkit.fetch.disk import write_atomically
from wellkit.schemas.result import Result


def save_result(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        StorageError: the file cannot be written.
    """
    text = json.dumps(result.to_mapping(), indent=1, allow_nan=False) + "\n"
    write_atomically(Path(path), text.encode())


def load_result(path: str | os.PathLike[str]) -> Result:
    """Read a result.

    Raises:
        DataNotFoundError: no such file.
        DocumentVersionError, DocumentError: not a result, or of another version.
    """
    return Result.parse(read_result_file(path), source=str(path))


def read_result_file(path: str | os.PathLike[str]) -> Any:
    """The JSON in a file that is to be a result, whatever it holds.

    Raises:
        DataNotFoundError: no such file.
        DocumentError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataNotFoundError(f"{path}: no such result file; wellkit evaluate --out writes one") from error
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read ({error.strerror}); give a result file") from error
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path}: not a JSON file ({error})") from error
