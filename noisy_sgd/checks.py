"""What arguments may be: each check refuses nonsense in one sentence and returns a plain number.

checks.count("num_steps", np.int64(3), least=0)    # 3
checks.real("delta", 1.5, above=0, below=1)        # ValueError: `delta` must be ... Received: delta=1.5
"""

import math
import numbers
from collections.abc import Sequence


def count(name: str, value: int, least: int = 1) -> int:
    """A whole number of at least `least`; Python's or NumPy's, but no float and no bool."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}. Received: {name}={value!r}")
    return int(value)


def real(name: str, value: float, above: float = -math.inf, below: float = math.inf, least: float = -math.inf) -> float:
    """A finite number with above < value < below and value >= least."""
    plain = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(plain) and above < plain < below and plain >= least):
        bounds = [f"{word} {bound:g}" for word, bound in (("at least", least), ("above", above), ("below", below))]
        said = " and ".join(text for text in bounds if not text.endswith("inf"))
        raise ValueError(f"`{name}` must be a finite number{' ' + said if said else ''}. Received: {name}={value!r}")
    return plain


def choice(name: str, value: str, allowed: Sequence[str]) -> str:
    """One of the allowed words."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {tuple(allowed)}. Received: {name}={value!r}")
    return value


def batch(batch_size: int, num_examples: int) -> tuple[int, int]:
    """A batch size and a number of examples that is at least as large."""
    batch_size, num_examples = count("batch_size", batch_size), count("num_examples", num_examples)
    if batch_size > num_examples:
        raise ValueError(
            "`batch_size` must be at most `num_examples`: a batch holds an example once at most. "
            f"Received: batch_size={batch_size}, num_examples={num_examples}"
        )
    return batch_size, num_examples
