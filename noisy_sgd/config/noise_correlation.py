"""How noise that is correlated over steps is typed: --noise_correlation.

noise_correlation.parsed("lambda_cgd:0.9")    # ("lambda_cgd", (0.9,))
noise_correlation.parsed("1,-0.5,-0.125")     # ("coefficients", (1.0, -0.5, -0.125))

Covered by tests/config/training_test.py.
"""

import math

from noisy_sgd.config import rules

_WAY_OUT = "give lambda_cgd:0.9, banded_inverse_square_root:4, or coefficients such as 1,-0.9"


def parsed(text: str) -> tuple[str, tuple[float, ...]]:
    """The kind, "lambda_cgd", "banded_inverse_square_root" or "coefficients", and its numbers.

    Raises:
        ConfigError: for any other text, or a number out of its range.
    """
    kind, colon, rest = text.partition(":")
    kind, rest = (kind, rest) if colon else ("coefficients", text)
    try:
        numbers = tuple(float(number) for number in rest.split(","))
    except ValueError:
        numbers = ()
    known = {
        "lambda_cgd": len(numbers) == 1 and 0 <= numbers[0] < 1,
        "banded_inverse_square_root": len(numbers) == 1 and numbers[0] in range(1, 10_001),
        "coefficients": bool(numbers) and all(map(math.isfinite, numbers)) and numbers[0] > 0,
    }
    constraints = {
        "lambda_cgd": "must hold one number, at least 0 and less than 1, after lambda_cgd:",
        "banded_inverse_square_root": "must hold one whole number from 1 up after banded_inverse_square_root:",
        "coefficients": "must list finite numbers, the first one positive",
    }
    rules.require(kind in known, "noise_correlation", "names no kind of noise that is known", text, _WAY_OUT)
    rules.require(known[kind], "noise_correlation", constraints[kind], text, _WAY_OUT)
    return kind, numbers
