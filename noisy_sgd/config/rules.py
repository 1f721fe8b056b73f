"""How a typed value is refused: one sentence with the flag, what it must be, what was received, and the way out.

rules.require_at_least("num_steps", 0, 1)
# ConfigError: `--num_steps` must be at least 1 (Received: num_steps=0); give a whole number from 1 up
"""

from typing import Any


class ConfigError(ValueError):
    """A typed value that cannot be used; the message is one sentence for the person who typed it."""


def require(holds: bool, name: str, constraint: str, value: Any, way_out: str) -> None:
    """Refuses a typed value, naming the flag, what it must be, what was received and the way out."""
    if not holds:
        raise ConfigError(f"`--{name}` {constraint} (Received: {name}={value}); {way_out}")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a value that is not in the list."""
    require(value in choices, name, f"must be one of {', '.join(choices)}", value, "choose one of these")


def require_at_least(name: str, value: int | None, smallest: int) -> None:
    """Refuses a count that is too small, or too large for a tensor's index; None means that it was not typed."""
    way_out = f"give a whole number from {smallest} up"
    require(value is None or value >= smallest, name, f"must be at least {smallest}", value, way_out)
    require(value is None or value < 2**31, name, f"must be at most {2**31 - 1}", value, "give a smaller one")


def require_distinct(name: str, values: tuple[Any, ...]) -> None:
    """Refuses an empty list, or one that names something twice."""
    distinct = bool(values) and len(set(values)) == len(values)
    listed = ",".join(map(str, values))
    require(distinct, name, "must list one or more different values", listed, "separate them by commas")
