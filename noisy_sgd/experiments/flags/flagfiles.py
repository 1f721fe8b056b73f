"""Flagfiles: where the package's own lie, and a command line with the lines of its flagfiles in their place.

    flagfiles.expanded(["train", "--flagfile=configs/train/digits_dp_sgd.flags", "--num_steps=8"])

A name that begins with configs/ is found in an installed package too, from any working directory.

Tested by tests/experiments/flags_test.py.
"""

import pathlib
from collections.abc import Iterator, Sequence

from noisy_sgd import config

_HOME = pathlib.Path(__file__).parents[2]
# An installed package holds them itself; in a checkout they lie beside it.
CONFIGS = next((path for path in (_HOME / "configs", _HOME.parent / "configs") if path.is_dir()), _HOME / "configs")
_NAMES = ("--flagfile", "-flagfile")


def expanded(argv: Sequence[str]) -> list[str]:
    """The command line with every --flagfile=NAME replaced by the flags in the file, and so for files that it names.

    A flagfile has one flag a line. Blank lines, and lines that begin with # or //, are comments.

    Raises:
        ConfigError: for a file that cannot be read, or that names itself.
    """
    return list(_lines(argv, ()))


def typed(argv: Sequence[str]) -> list[str]:
    """The command line without its flagfiles."""
    return [argument for argument, file in _parts(argv) if file is None]


def as_typed(path: pathlib.Path) -> str:
    """The path of a flagfile as it can be typed anywhere: configs/... for the package's own."""
    own = path.is_relative_to(CONFIGS)
    return pathlib.Path("configs", path.relative_to(CONFIGS)).as_posix() if own else str(path)


def _lines(arguments: Sequence[str], inside: tuple[pathlib.Path, ...]) -> Iterator[str]:
    for argument, file in _parts(arguments):
        if file is None:
            yield argument
            continue
        path = _found(file)
        constraint = "must not name itself"
        config.require(path not in inside, "flagfile", constraint, path, "remove that line of it")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise config.ConfigError(
                f"`--flagfile` cannot be read: {reason} (Received: flagfile={path}); choose a file, such as those in "
                f"{CONFIGS}"
            ) from error
        written = [line.strip() for line in lines]
        yield from _lines([line for line in written if line and not line.startswith(("#", "//"))], (*inside, path))


def _parts(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Every argument, with the name of the file if it is a --flagfile, whose name may be the next argument."""
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        yield argument, (value if equals else next(rest, "")) if name in _NAMES else None


def _found(name: str) -> pathlib.Path:
    path = pathlib.Path(name).expanduser()
    if not path.exists() and path.parts[:1] == ("configs",):
        return CONFIGS.joinpath(*path.parts[1:])
    return path
