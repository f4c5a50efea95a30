"""Metadata as JSON."""

from __future__ import annotations

import json
from typing import Any

from .exceptions import FrameportError, MetaError


def dumps(meta: dict[str, Any], what: str = "metadata", error_type: type[FrameportError] = MetaError) -> str:
    """The JSON of a frame's metadata, say; NumPy's numbers and arrays count as Python's."""
    try:
        return json.dumps(meta, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError) as error:
        raise error_type(f"the {what} cannot be said in JSON: {error}") from error


def _plain(value: Any) -> Any:
    convert = getattr(value, "tolist", None)
    if convert is None:
        raise TypeError(f"{type(value).__name__} is no JSON type")
    return convert()
