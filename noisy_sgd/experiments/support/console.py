"""The console command: `noisy-sgd NAME [CONFIGURATION] [--flags]` is `python -m noisy_sgd.experiments.NAME`.

    noisy-sgd train --dataset=digits --algorithm=dp_sgd --l2_norm_clip=1 --noise_multiplier=1.1
    noisy-sgd reproduce quick             # --flagfile=configs/reproduce/quick.flags
    noisy-sgd                             # lists the names

Tested by tests/experiments/support/console_test.py.
"""

import ast
import difflib
import pathlib
import runpy
import sys
from collections.abc import Sequence

from noisy_sgd.experiments.flags import BAD_INPUT, flagfiles

_HOME = pathlib.Path(__file__).parents[1]


def binaries() -> dict[str, str]:
    """What each binary does, in one line, by its name."""
    found = {}
    for path in sorted(_HOME.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "\ndef main(" in source:
            found[path.stem] = ast.get_docstring(ast.parse(source)).splitlines()[0]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a binary.

    Args:
        argv: the command line, without the name of the command. Defaults to that of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = binaries()
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        width = max(map(len, known))
        print("noisy-sgd NAME [CONFIGURATION] [--flags]; noisy-sgd NAME --help explains the flags.\n")
        print("\n".join(f"{name:{width}}  {line}" for name, line in known.items()))
        return
    name, *rest = arguments
    if name not in known:
        _refuse("NAME", name, known)
    if rest and not rest[0].startswith("-"):
        own = {path.stem: path for path in sorted((flagfiles.CONFIGS / name).glob("*.flags"))}
        if rest[0] not in own:
            _refuse("CONFIGURATION", rest[0], own)
        rest[0] = f"--flagfile={pathlib.Path('configs', name, own[rest[0]].name)}"
    sys.argv = [name, *rest]
    runpy.run_module(f"noisy_sgd.experiments.{name}", run_name="__main__", alter_sys=True)


def _refuse(what: str, received: str, known) -> None:
    near = difflib.get_close_matches(received, known, 1)
    way_out = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(known) or 'none: it has none'}"
    print(f"noisy-sgd: {what} is not known (Received: {received}); {way_out}", file=sys.stderr)
    sys.exit(BAD_INPUT)
