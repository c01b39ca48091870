"""JSON of other tools, read with errors in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from wsolpipe.contract.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def read_json(path: Path) -> Any:
    """Value of a JSON file.

    Raises
    ------
    DataError
        If it cannot be read or is not JSON; names the line.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise DataError(msg) from error
    except json.JSONDecodeError as error:
        msg = f"{path}:{error.lineno}: not JSON: {error.msg}"
        raise DataError(msg) from error
    except (UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is not JSON: {'nested too deep' if isinstance(error, RecursionError) else 'not UTF-8 text'}"
        raise DataError(msg) from error
