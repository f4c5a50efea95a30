"""Many frames through several workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from types import EllipsisType
from typing import Any, Literal, overload

from . import _native
from ._host import SAME_AS_INPUT, Command, Delivery, plain, spawn, words
from ._native import Frame, Loan, Pixels, Spec
from .exceptions import ConfigError, FrameLost, LinkClosed


@dataclass(frozen=True)
class Lost:
    """A frame that will have no result."""

    seq: int
    """Number of the frame: that of the array in `frames`."""
    why: Exception
    """The death of the worker that had it last."""


@overload
def map(
    worker: Command,
    frames: Iterable[Any],
    *,
    workers: int = 4,
    ordered: bool = True,
    spec: Spec | None = None,
    output: Spec | EllipsisType = ...,
    window: int | None = None,
    redeliver: Literal["at-least-once", "at-most-once"] = "at-least-once",
    tries: int = 5,
    on_lost: Literal["raise"] = "raise",
    **options: Any,
) -> Iterator[Frame]: ...
@overload
def map(
    worker: Command,
    frames: Iterable[Any],
    *,
    workers: int = 4,
    ordered: bool = True,
    spec: Spec | None = None,
    output: Spec | EllipsisType = ...,
    window: int | None = None,
    redeliver: Literal["at-least-once", "at-most-once"] = "at-least-once",
    tries: int = 5,
    on_lost: Literal["yield"],
    **options: Any,
) -> Iterator[Frame | Lost]: ...
def map(
    worker: Command,
    frames: Iterable[Any],
    *,
    workers: int = 4,
    ordered: bool = True,
    spec: Spec | None = None,
    output: Spec | EllipsisType = SAME_AS_INPUT,
    window: int | None = None,
    redeliver: Literal["at-least-once", "at-most-once"] = "at-least-once",
    tries: int = 5,
    on_lost: Literal["raise", "yield"] = "raise",
    **options: Any,
) -> Iterator[Frame | Lost]:
    """Puts `frames` through several workers of one command and yields the results; `frame.seq` is the array's number.

    Each step of the loop gives up its hold on the result before, as a loop over a worker does: copy what is to be kept.
    A worker that dies is replaced. A frame its worker passes over (`fp.DROP`) has no result.

    worker: the program and its arguments, as for `spawn()`.
    frames: arrays, taken one by one as the workers have room.
    ordered: whether results come in the order of the frames, or as they are ready.
    spec: what the frames are. Unless given the first one tells: bytes of shape (H, W), (H, W, 3) or (H, W, 4) are "gray",
        "bgr24" or "bgra", everything else a tensor.
    window: how many frames may be under way; workers times slots unless given.
    redeliver: what becomes of the frames a dead worker had: "at-least-once" gives them to another, which takes a copy of
        each frame; "at-most-once" takes none, and the frames are lost.
    tries: workers that may die with the same frame before it is given up.
    on_lost: "raise" FrameLost for a lost frame, or "yield" a `Lost` in its place.
    options: those of `spawn()`.
    """
    # Its workers' channels are lossless, and it starts them again by itself.
    defaults = spawn.__kwdefaults__ or {}
    known = {name: value for name, value in defaults.items() if name not in ("delivery", "quota", "restart", "stall")}
    if unknown := options.keys() - known.keys():
        raise TypeError(f"map() has no option {', '.join(sorted(unknown))}: there are those of spawn(), and its own")
    if on_lost not in ("raise", "yield"):
        raise ConfigError(f"on_lost is {on_lost!r}, must be one of raise, yield")
    rules = {"workers": workers, "ordered": ordered, "window": window, "redeliver": redeliver, "tries": tries}
    return run(words(worker), iter(frames), spec, output, plain(known | options), rules, on_lost == "raise")


def run(
    command: list[str],
    frames: Iterator[Any],
    spec: Spec | None,
    output: Spec | EllipsisType,
    options: dict[str, Any],
    rules: dict[str, Any],
    raises: bool,
) -> Iterator[Frame | Lost]:
    """The loop itself: one thread both sends and receives."""
    for first in frames:
        break
    else:
        return
    frames = chain([first], frames)
    spec = spec or spec_of(first)
    back = spec if isinstance(output, EllipsisType) else output
    channels: list[tuple[str, bool, Spec, Delivery]] = [("in", True, spec, "lossless"), ("out", False, back, "lossless")]
    group = _native.group(command, channels, options, rules)
    try:
        while True:
            try:
                step = group.step()
            except LinkClosed:
                return
            match step:
                case Loan() as room:
                    for frame in frames:
                        with room:
                            room.fill(frame)
                        break
                    else:
                        room.discard()
                        group.finish()
                case Frame() as result:
                    with result:
                        yield result
                case seq, why:
                    if raises:
                        raise FrameLost(seq, why) from why
                    yield Lost(seq, why)
    finally:
        group.stop()


def spec_of(frame: Any) -> Spec:
    """What a frame says it is."""
    if isinstance(frame, Pixels):
        return frame.spec
    try:
        dtype, shape = frame.dtype, tuple(frame.shape)
    except AttributeError:
        raise ConfigError(f"what is a {type(frame).__name__}? Give spec=fp.Spec(...)") from None
    if str(dtype).removeprefix("torch.") == "uint8":
        match shape:
            case height, width:
                return Spec("gray", width, height)
            case height, width, 3 | 4 as channels:
                return Spec("bgr24" if channels == 3 else "bgra", width, height)
    return Spec.tensor(dtype, shape)
