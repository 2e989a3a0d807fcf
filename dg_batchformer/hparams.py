"""HParam: one hyper-parameter with its default, its random draw and what a person may give for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.seeds import seed_hash

Value = bool | int | float | str
Hparams = dict[str, Any]


@dataclass(frozen=True)
class HParam:
    """A hyper-parameter: its default, how DomainBed draws it, and its allowed values.

    Args:
        default: the value under ``hparams_seed`` 0; its type is the type of the hyper-parameter.
        draw: maps a NumPy ``RandomState`` to one random value; None means that it is never drawn.
        about: one line for ``list hparams``.
        low, high: inclusive bounds for numbers.
        choices: the allowed values, where they can be counted.

    """

    default: Value
    draw: Callable[[np.random.RandomState], Any] | None = None
    about: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[Value, ...] = ()

    def sample(self, name: str, seed: int) -> Value:
        """Draw a value; every name has a generator of its own, so adding one never shifts another."""
        if self.draw is None:
            return self.default
        value = self.draw(np.random.RandomState(seed_hash(seed, name)))
        return type(self.default)(value.item() if hasattr(value, "item") else value)

    def parse(self, name: str, given: object) -> Value:
        """Return the given value in this hyper-parameter's type; raise InputError where it does not fit."""
        value = _coerce(name, given, type(self.default))
        if self.choices and value not in self.choices:
            raise unknown(f"value of hparam {name}:", given, [str(choice) for choice in self.choices])
        if isinstance(value, int | float) and not self._in_bounds(value):
            raise InputError(f"hparam {name} is {value}, allowed is {self.allowed}")
        return value

    @property
    def allowed(self) -> str:
        """What may be given, as text; '' where anything of the type may."""
        if self.choices:
            return ", ".join(str(choice) for choice in self.choices)
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"at least {self.low:g}"
        return f"at most {self.high:g}" if self.high is not None else ""

    def _in_bounds(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


class DeclaredHparams(dict[str, Any]):
    """The hparams of a run as an algorithm gets them: reading one that nobody declared says how to declare it."""

    def __init__(self, values: Mapping[str, Any], algorithm: str) -> None:
        super().__init__(values)
        self.algorithm = algorithm

    def __missing__(self, name: str) -> Any:
        raise InputError(
            f"{self.algorithm} reads hparam {name!r}, declare it: in its search_space, or beside a class that is to "
            f"stay as it is, by HPARAMS = {{{name!r}: 0.1}} in its module"
        )


def _coerce(name: str, given: object, kind: type) -> Value:
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
    misfit = InputError(f"hparam {name} takes {wanted}, got {given!r}")
    if kind is str:
        if isinstance(given, str):
            return given
        raise misfit
    if isinstance(given, bool) or kind is bool:
        if isinstance(given, bool) and kind is bool:
            return given
        raise misfit
    try:
        number = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise misfit from None
    if number != number:
        raise misfit
    if kind is int:
        if not number.is_integer():
            raise misfit
        return int(number)
    return number


def plain_number(value: object) -> object:
    """Turn a text that is a number into that number (YAML reads 5e-5 as a text); leave the rest alone."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def same_spelling(value: object) -> object:
    """Return one spelling for equal numbers, so that 1 and 1.0 are the same thing asked for."""
    number = plain_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() and abs(number) < 2**53 else number
