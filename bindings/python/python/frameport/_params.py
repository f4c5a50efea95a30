"""Parameters: small values a host sets and its worker sees with the next frame."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ._meta import dumps
from .exceptions import ParamsError

if TYPE_CHECKING:
    from ._native import Worker


class Params(MutableMapping[str, Any]):
    """What a host has set for a worker: `w.params["threshold"] = 0.4`; anything JSON can say, 64 KiB in all.

    A frame that is sent after a set comes with it. Setting never waits for the worker. What is read here is a copy: assign
    a list anew to change it.
    """

    __slots__ = ("_worker",)

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def _all(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self._worker._params())
        return values

    def __getitem__(self, name: str) -> Any:
        return self._all()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def __delitem__(self, name: str) -> None:
        if not self._worker._remove_param(name):
            raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def update(self, *values: Any, **more: Any) -> None:
        """Sets several values at once: the worker never sees one of them without the others."""
        self._worker._set_params(encoded(dict(*values, **more)))

    def __repr__(self) -> str:
        return f"Params({self._all()!r})"


def encoded(values: Mapping[str, Any]) -> str:
    """The JSON of parameters; NumPy's numbers and arrays count as Python's."""
    for name in values:
        if not isinstance(name, str):
            raise TypeError(f"a parameter's name is a str, not {type(name).__name__}")
    return dumps(dict(values), "parameters", ParamsError)


def frozen(text: str) -> Mapping[str, Any]:
    """What a worker sees: objects are read-only mappings and lists are tuples."""
    values = _frozen(json.loads(text))
    assert isinstance(values, Mapping)
    return values


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(item) for name, item in value.items()})
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
