"""A worker's loop, for those who only want to write what is done with a frame."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, final, overload

from ._worker import VARIABLE, connect
from .exceptions import LinkClosed

if TYPE_CHECKING:
    from ._native import Frame, Link, Spec

Process = TypeVar("Process", bound="Callable[[Frame], Any]")


@final
class Drop:
    """The type of `DROP`."""

    def __repr__(self) -> str:
        return "frameport.DROP"


DROP: Final = Drop()
"""What a worker's function returns when nothing shall go back for a frame."""


@overload
def worker(process: Process) -> Process: ...
@overload
def worker(
    process: None = None, *, output: Spec | None = None, logging: bool | int = False
) -> Callable[[Process], Process]: ...
def worker(process: Process | None = None, *, output: Spec | None = None, logging: bool | int = False) -> Any:
    """Makes a function the worker of its file: `main(process)` when the file is run, the plain function when imported.

    The loop runs where the decorator stands, so what the function uses is to be defined above it.
    """
    if process is None:
        return lambda process: worker_of(process, output, logging)
    return worker_of(process, output, logging)


def worker_of(process: Process, output: Spec | None, logging: bool | int) -> Process:
    """The decorator's work."""
    # An interactive session is `__main__` too, but no file.
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if process.__module__ == "__main__" and file is not None:
        main(process, output=output, logging=logging)
    return process


def main(process: Callable[[Frame], Any], *, output: Spec | None = None, logging: bool | int = False) -> None:
    """Calls `process` with each frame until the host closes, and sends back what it returns.

    None: the same slot, edited in place. An array: a copy of it, its shape and type being those of the output.
    `DROP`: nothing. What the host has set is `frame.params`; `logging` sends this process's log to it, as `connect` does.
    An exception ends the process with status 1 and is told to the host.
    """
    if VARIABLE not in os.environ:
        script = os.path.basename(sys.argv[0] or "worker.py")
        print(
            f"{script} is a frameport worker, which a host starts; "
            f"run it with: frameport run --input pattern -- python {script}",
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        # Leaving the block by an exception tells the host of it.
        with connect(output, logging=logging) as link:
            serve(link, process)
    except LinkClosed:
        return
    except NameError as error:
        error.add_note("@frameport.worker runs its loop where it stands: define what the function uses above it")
        raise


def serve(link: Link, process: Callable[[Frame], Any]) -> None:
    """The loop itself."""
    for frame in link:
        result = process(frame)
        if result is None:
            link.send_back(frame)
        elif result is not DROP:
            with link.reply(frame) as out:
                out.fill(result)
        # A result that is a view of the frame would keep its slot during the wait for the next.
        del result
