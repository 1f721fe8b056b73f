"""What `--help` prints: what a binary does, a command to begin with, and its flags, on one screen.

    help_page.text(values, "train", train, full=False)

Tested by tests/experiments/flags_test.py.
"""

import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Sequence

from absl import flags as absl_flags

from noisy_sgd.experiments.flags import flagfiles

# The group of the flags that ask for help, which is not listed.
TITLE = "help"
# A screen has so many lines of so many characters.
_SCREEN, _WIDTH = 40, 80


def text(values: absl_flags.FlagValues, program: str, parser: Callable, *, full: bool) -> str:
    """What a binary does, with an example, and its flags: explained where that fits a screen, otherwise listed.

    Args:
        values: the binary's flags.
        program: its path or its name.
        parser: its `parse`, whose docstring says what it does.
        full: whether the flags are explained in any case.
    """
    name = pathlib.Path(program).stem
    groups = {title: group for title, group in values.flags_by_module_dict().items() if title != TITLE}
    summary = textwrap.fill(f"{name}: {parser.__doc__}", _WIDTH)
    lines = [*summary.splitlines(), "", "Example:", f"  {_example(name)}"]
    explained = [line for title, group in groups.items() for line in ("", f"{title}:", *_explained(group))]
    if full or len(lines) + len(explained) <= _SCREEN:
        return "\n".join([*lines, *explained])
    lines.append("")
    for title, group in groups.items():
        listed = f"{title}: {'  '.join(map(_as_typed, group))}"
        # A flag is not broken at the hyphens that it begins with.
        lines += textwrap.wrap(listed, _WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join([*lines, "", "--helpfull explains the flags, and --flagfile=FILE reads them from a file."])


def _example(name: str) -> str:
    """A command of a binary: the one in its description, or its first flagfile's."""
    command = f"python -m noisy_sgd.experiments.{name}"
    found = re.search(rf"^ *({command} .*)$", sys.modules["__main__"].__doc__ or "", re.MULTILINE)
    if found:
        return found[1]
    flagfile = next(iter(sorted((flagfiles.CONFIGS / name).glob("*.flags"))), None)
    return command if flagfile is None else f"{command} --flagfile=configs/{name}/{flagfile.name}"


def _explained(group: Sequence[absl_flags.Flag]) -> list[str]:
    indents = {"initial_indent": "  ", "subsequent_indent": "      "}
    whole = {"break_on_hyphens": False, "break_long_words": False}
    sentences = (f"{_as_typed(flag)}: {flag.help}" for flag in group)
    return [line for sentence in sentences for line in textwrap.wrap(sentence, _WIDTH, **indents, **whole)]


def _as_typed(flag: absl_flags.Flag) -> str:
    """A flag with its default, as it can be typed."""
    if flag.boolean:
        return f"--[no]{flag.name}"
    # absl puts a default in quotes.
    return f"--{flag.name}" + ("" if flag.default in (None, []) else f"={flag.default_as_str[1:-1]}")
