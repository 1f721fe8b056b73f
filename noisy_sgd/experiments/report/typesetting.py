"""Sentences with formulas, as HTML: Greek letters, powers, indices and signs where the text spells them out.

    typesetting.html("gamma lambda_max = 0.5, 1.3e-5")     # γ λ<sub>max</sub> = 0.5, 1.3 × 10<sup>−5</sup>

Tested by tests/experiments/report/pages_test.py.
"""

import html as entities
import re

_GREEK = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ε",
    "theta": "θ",
    "lambda": "λ",
    "mu": "μ",
    "phi": "φ",
    "sigma": "σ",
}
_INDICES = {"max": "max", "min": "min", "inf": "∞", "alpha": "α", "t": "t"}
# In this order: an index belongs to the letter before it, and a number to its power of ten.
_REPLACED = (
    (re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)e\+?(-?)0*(\d+)\b"), r"\1 × 10<sup>\2\3</sup>"),
    (re.compile(rf"(?<![\w-])({'|'.join(_GREEK)})(?![a-z])"), lambda match: f"<i>{_GREEK[match[1]]}</i>"),
    (
        re.compile(rf"(</i>|\b[a-z])_({'|'.join(_INDICES)})\b"),
        lambda match: f"{match[1]}<sub>{_INDICES[match[2]]}</sub>",
    ),
    (re.compile(r"_\{([^}]*)\}"), r"<sub>\1</sub>"),
    (re.compile(r"(?<=[\w)|>])\^(-?\d+)"), r"<sup>\1</sup>"),
    (re.compile(r"(</i>)\*"), r"\1<sup>*</sup>"),
    (re.compile(r"\bsqrt\((\w+)\)"), r"√\1"),
    (re.compile(r"&lt;="), "≤"),
    (re.compile(r"\bprod (?=\|)"), "∏ "),
    (re.compile(r"\bint (?=\|)"), "∫ "),
    (re.compile(r" - "), " − "),
    # A minus sign before a number, and not a hyphen inside a word or a span of numbers.
    (re.compile(r"(?<![\w.])-(?=\d)"), "−"),
)


def html(text: str) -> str:
    """The text with its formulas typeset, safe to put between HTML tags."""
    text = entities.escape(text, quote=False)
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    return text
