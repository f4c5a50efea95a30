"""Copies of frames, for what no view can show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .exceptions import FormatError

if TYPE_CHECKING:
    import numpy as np

    from ._native import Pixels


def to_ndarray(pixels: Pixels) -> np.ndarray[Any, Any]:
    """A copy as one array: the frame's own shape, or the planes' rows below each other, as PyAV has them."""
    import numpy as np

    spec, planes = pixels.spec, pixels.planes
    if len(planes) == 1 or spec.shape is not None:
        whole = planes[0] if len(planes) == 1 and spec.kind == "video" else pixels
        return np.array(whole)
    parts = [np.asarray(plane) for plane in planes]
    height, width = parts[0].shape
    if len({part.shape for part in parts}) == 1:
        return np.stack(parts)
    if any(part.size % width for part in parts) or height % (width // parts[1].shape[1]):
        raise FormatError(f"the planes of {spec} do not make one array: copy those of frame.planes")
    return np.concatenate([part.reshape(-1) for part in parts]).reshape(-1, width)


def copy(pixels: Pixels) -> Any:
    """An array where NumPy is there, else bytes."""
    try:
        import numpy  # noqa: F401
    except ModuleNotFoundError:
        return pixels.tobytes()
    return to_ndarray(pixels)
