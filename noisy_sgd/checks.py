"""Argument checks: each check refuses a wrong value in one sentence and returns a right value as a plain Python value.

Every message has the same form: the argument, the constraint, the received value. Checks that only one package needs,
such as the shapes of a batch, are in that package.

    checks.count("num_steps", np.int64(3), least=0)    # 3
    checks.real("delta", 1.5, above=0, below=1)        # ValueError: `delta` must be ... Received: delta=1.5
"""

import math
import numbers
import operator
import typing
from collections.abc import Iterable
from typing import Any

if typing.TYPE_CHECKING:
    import numpy as np


def require(holds: bool, name: str, constraint: str, value: Any) -> None:
    """Refuses a value unless the constraint holds.

    Raises:
        ValueError: naming the argument, the constraint and the value.
    """
    if not holds:
        raise _refusal(name, constraint, value)


def whole(value: Any) -> int | None:
    """A whole number of Python, NumPy or TensorFlow as Python's; None for anything else, also for a float or a bool."""
    # NumPy's bool is an index in some of its versions.
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def is_real(value: Any) -> bool:
    """Whether the value is one number of Python or NumPy, including infinity and NaN; a bool is not a number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def count(name: str, value: int, least: int = 1, *, constraint: str | None = None) -> int:
    """A whole number of at least `least`.

    Args:
        name: of the argument.
        value: Python's or NumPy's whole number, but no float and no bool.
        least: the smallest that is allowed. Defaults to 1.
        constraint: the words of the message. Defaults to "must be a whole number of at least <least>".

    Raises:
        ValueError: for anything else.
    """
    number = whole(value)
    if number is None or number < least:
        raise _refusal(name, constraint or f"must be a whole number of at least {least}", value)
    return number


def at_least(name: str, value: float, least: float) -> None:
    """Refuses a number below `least`, and NaN; the type is not checked."""
    require(bool(value >= least), name, f"must be at least {least}", value)


def real(name: str, value: float, above: float = -math.inf, below: float = math.inf, least: float = -math.inf) -> float:
    """A finite number with above < value < below and value >= least."""
    plain = float(value) if is_real(value) else math.nan
    bounds = [f"{word} {bound:g}" for word, bound in (("at least", least), ("above", above), ("below", below))]
    limits = " and ".join(text for text in bounds if not text.endswith("inf"))
    holds = math.isfinite(plain) and above < plain < below and plain >= least
    require(holds, name, f"must be a finite number{' ' + limits if limits else ''}", value)
    return plain


def choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """One of the allowed words."""
    listed = tuple(allowed)
    require(value in listed, name, f"must be one of {', '.join(map(str, listed))}", value)
    return value


def seed(name: str, value: int) -> int:
    """An integer of any sign, Python's or NumPy's; of bytes, which may be a secret, the message shows only how many."""
    number = whole(value)
    if number is None and isinstance(value, bytes):
        raise ValueError(f"`{name}` must be an integer. Received: {name}={len(value)} bytes")
    if number is None:
        raise _refusal(name, "must be an integer", value)
    return number


def batch(batch_size: int, num_examples: int) -> tuple[int, int]:
    """A batch size and a number of examples that is at least as large."""
    batch_size, num_examples = count("batch_size", batch_size), count("num_examples", num_examples)
    if batch_size > num_examples:
        raise ValueError(
            f"`batch_size` must be at most `num_examples`, here {num_examples}: a batch holds an example at most once. "
            f"Received: batch_size={batch_size}, num_examples={num_examples}"
        )
    return batch_size, num_examples


def positive(name: str, value: "float | np.ndarray") -> "np.ndarray":
    """A scalar or array that is finite and above 0, as float64."""
    import numpy as np  # Importing the package imports nothing heavy.

    array = np.asarray(value, dtype=np.float64)
    require(bool((np.isfinite(array) & (array > 0)).all()), name, "must be positive and finite", value)
    return array


def non_negative(name: str, value: "float | np.ndarray") -> "np.ndarray":
    """A scalar or array that is finite and at least 0, as float64."""
    import numpy as np  # As above.

    array = np.asarray(value, dtype=np.float64)
    require(bool((np.isfinite(array) & (array >= 0)).all()), name, "must be at least 0 and finite", value)
    return array


def _refusal(name: str, constraint: str, value: Any) -> ValueError:
    # NumPy 2 writes a scalar with its type.
    shown = value.item() if isinstance(value, numbers.Number) and hasattr(value, "item") else value
    return ValueError(f"`{name}` {constraint}. Received: {name}={shown!r}")
