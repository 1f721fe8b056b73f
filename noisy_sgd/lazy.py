"""Public names of a package that are loaded when they are first used: importing a package imports nothing heavy.

__getattr__, __dir__, __all__ = lazy.attach(__name__, {"DPSGD": "noisy_sgd.optimizers.sgd"})
__getattr__, __dir__, __all__ = lazy.attach(__name__, {}, lazy.modules(__path__))     # every module of the package
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping


def attach(
    package: str, names: Mapping[str, str], submodules: tuple[str, ...] = ()
) -> tuple[Callable, Callable, list[str]]:
    """What a package needs to offer names that it does not import yet.

    Args:
        package: its `__name__`.
        names: public name -> the module that defines it, in full.
        submodules: public submodules of the package. Defaults to none.

    Returns:
        The package's `__getattr__`, `__dir__` and `__all__`.
    """
    public = sorted((*names, *submodules))

    def load(name: str):
        if name in names:
            value = getattr(importlib.import_module(names[name]), name)
        elif name in submodules:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *public}), public


def modules(path: Iterable[str]) -> tuple[str, ...]:
    """The names of a package's modules and of the packages in it, from its `__path__`."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(path)))
