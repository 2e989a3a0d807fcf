"""HParam: a hyper-parameter with its default, its random draw and its allowed values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dg_batchformer.errors import InputError, unknown
from dg_batchformer.seeds import seed_hash

Value = bool | int | float | str
Hparams = dict[str, Any]
# Values of the hparam ``freeze`` besides stage names.
NOTHING, WHOLE = "none", "featurizer"


@dataclass(frozen=True)
class HParam:
    """A hyper-parameter: its default, its random draw and its allowed values.

    Args:
        default: value for ``hparams_seed`` 0; its type is that of the hyper-parameter.
        draw: maps a NumPy ``RandomState`` to a random value; None means that random search does not vary it.
        about: one-line description for ``list hparams``.
        low, high: inclusive bounds for numbers.
        choices: the allowed values, if they can be listed.

    """

    default: Value
    draw: Callable[[np.random.RandomState], Any] | None = None
    about: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[Value, ...] = ()

    def sample(self, name: str, seed: int) -> Value:
        """Draw a value; every name has its own generator, so adding a hparam does not change the draws of others."""
        if self.draw is None:
            return self.default
        value = self.draw(np.random.RandomState(seed_hash(seed, name)))
        return type(self.default)(value.item() if hasattr(value, "item") else value)

    def parse(self, name: str, given: object) -> Value:
        """Convert a given value to the type of the hyper-parameter; raise InputError if it is not allowed."""
        value = _coerce(name, given, type(self.default))
        if self.choices and value not in self.choices:
            raise unknown(f"value of hparam {name}:", given, [str(choice) for choice in self.choices])
        if isinstance(value, int | float) and not self._in_bounds(value):
            raise InputError(f"hparam {name} is {value}; allowed: {self.allowed}")
        return value

    def allows(self, value: Value) -> bool:
        """Whether a value is among the choices, where there are any."""
        return not self.choices or value in self.choices

    @property
    def allowed(self) -> str:
        """Allowed values as text; '' if all values of the type are allowed."""
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
            f"{self.algorithm} reads the undeclared hparam {name!r}; declare it in its search_space, or with "
            f"HPARAMS = {{{name!r}: 0.1}} in its module"
        )


def _coerce(name: str, given: object, kind: type) -> Value:
    wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    misfit = InputError(f"hparam {name} must be {wanted}, got {given!r}")
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
        if not number.is_integer() or abs(number) >= 2**63:
            raise misfit
        return int(number)
    return number


def plain_number(value: object) -> object:
    """Convert numeric text to a number, as YAML reads 5e-5 as text; return other values unchanged."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def same_spelling(value: object) -> object:
    """Normalize equal numbers, so that 1 and 1.0 give the same run id."""
    number = plain_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() and abs(number) < 2**53 else number
