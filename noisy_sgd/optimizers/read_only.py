"""A property that cannot be set, and whose error says why and what to do instead.

class DPSGD:
    @read_only.attribute
    def noise_multiplier(self): return self._noise_multiplier

optimizer.noise_multiplier = 2.0    # AttributeError: ... make a new DPSGD ...
"""

from collections.abc import Callable


def attribute(getter: Callable) -> property:
    """A property of a private optimizer that is fixed once the optimizer is made."""
    name = getter.__name__

    def refuse(self, value):
        kind = type(self).__name__
        raise AttributeError(
            f"`{name}` of a {kind} must not change, or the steps would differ from the accounting: make a new "
            f"{kind} and `compile` the model with it. Received: {name}={value!r}"
        )

    return property(getter, refuse, doc=getter.__doc__)
