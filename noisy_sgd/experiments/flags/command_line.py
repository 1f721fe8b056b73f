"""Reads a command line: flags from the fields of a dataclass, their values, and refusals in one sentence.

values = command_line.flag_set()
command_line.define(values, "data", config.Data, {"dataset": "the images", "data_dir": "their folder"})
command_line.parse(values, ["train", "--dataset=mnist"], train)
config.Data(**command_line.typed(values, config.Data))      # Data(dataset="mnist")

Tested by tests/experiments/flags_test.py.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from absl import app
from absl import flags as absl_flags

from noisy_sgd import config
from noisy_sgd.experiments.flags import flagfiles, help_page

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

# The names of all flags that were defined: an error of the library names an argument, and the user knows the flag.
_FLAGS: set[str] = set()
_FLAG_OF_ARGUMENT = {"train_size": "num_train_examples"}
_DEFINE = {
    bool: absl_flags.DEFINE_boolean,
    float: absl_flags.DEFINE_float,
    int: absl_flags.DEFINE_integer,
    str: absl_flags.DEFINE_string,
}


class Ended(SystemExit):
    """The end of the process by `end`: `code` is its status, `sentence` what it said."""

    def __init__(self, status: int, sentence: str):
        super().__init__(status)
        self.sentence = sentence


def run(parser: Callable[[Sequence[str]], Any], main: Callable[[Any], None], argv: Sequence[str] | None = None) -> None:
    """Parses the command line and runs a binary; bad input ends in one sentence and exit status 2, Ctrl-C in 130.

    Args:
        parser: from a command line to settings.
        main: called with the settings.
        argv: the command line. Defaults to `sys.argv`.
    """
    # The notes of TensorFlow and matplotlib would hide the one sentence that matters.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    def checked(argv):
        absl_flags.FLAGS([argv[0], "--verbosity=-1"])
        with refusals():
            return parser(argv)

    try:
        app.run(main, argv=None if argv is None else list(argv), flags_parser=checked)
    except KeyboardInterrupt:
        print(f"{pathlib.Path(sys.argv[0]).stem}: interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        # After a failure threads of tf.data may still be reading, and Python would wait for them forever.
        if argv is None and ended.code == FAILED:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(FAILED)
        raise


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turns a ValueError or OSError that is raised before training into one sentence on stderr and exit status 2."""
    try:
        yield
    except (absl_flags.Error, ValueError, OSError) as error:
        end(" ".join(str(error).split()), BAD_INPUT)


def end(sentence: str, status: int) -> NoReturn:
    """Ends the process with a sentence on stderr, in which flags are named as they are typed."""

    def typed_name(match: re.Match[str]) -> str:
        return f"`--{match[1]}`" if match[1] in _FLAGS else match[0]

    for argument, flag in _FLAG_OF_ARGUMENT.items():
        sentence = re.sub(rf"\b{argument}\b", flag, sentence)
    sentence = re.sub(r"`(\w+)`", typed_name, sentence)
    print(f"{pathlib.Path(sys.argv[0]).stem}: {sentence}", file=sys.stderr, flush=True)
    raise Ended(status, sentence)


def flag_set() -> absl_flags.FlagValues:
    """An empty flag set, for the flags of one binary."""
    return absl_flags.FlagValues()


def define(values: absl_flags.FlagValues, title: str, group: Any, helps: Mapping[str, str], **defaults: Any) -> None:
    """Defines one flag for each explained field of a dataclass, with its name, its type and its default.

    The flag of a field that holds a tuple lists its values.

    Args:
        values: the flag set.
        title: the heading of these flags in `--help`.
        group: a dataclass, or one of its values, whose fields are then the defaults.
        helps: what each flag is for, by the name of its field.
        **defaults: defaults that are not the group's, by the name of the field.
    """
    for field in dataclasses.fields(group):
        if field.name in helps:
            _FLAGS.add(field.name)
            default = defaults.get(field.name, getattr(group, field.name, None))
            if _listed(field.type) is not None:
                define_list(values, title, field.name, default, helps[field.name])
                continue
            kind = _kind(field.type)
            _DEFINE[kind](field.name, default, helps[field.name], flag_values=values, module_name=title)


def define_one(values: absl_flags.FlagValues, title: str, name: str, kind: type, default: Any, explained: str) -> None:
    """Defines a flag that is no field of a dataclass; its kind is int, float, str or bool."""
    _FLAGS.add(name)
    _DEFINE[kind](name, default, explained, flag_values=values, module_name=title)


def define_list(values: absl_flags.FlagValues, title: str, name: str, default: Any, explained: str) -> None:
    """Defines a flag that takes several values with commas between them."""
    _FLAGS.add(name)
    listed = (
        None if default is None else [f"{value:g}" if isinstance(value, float) else str(value) for value in default]
    )
    absl_flags.DEFINE_list(name, listed, explained, flag_values=values, module_name=title)


def read(
    argv: Sequence[str],
    parser: Callable,
    title: str,
    group: type,
    helps: Mapping[str, str],
    smoke: Mapping[str, Any] | None = None,
    **defaults: Any,
) -> Any:
    """Reads the command line of a binary whose flags are the fields of one dataclass.

    Args:
        argv: the command line.
        parser: the binary's `parse`, whose docstring `--help` shows.
        title: as in `define`.
        group: the dataclass, with a property `unread` as in `refuse_typed`.
        helps: as in `define`.
        smoke: values with which the measurement takes seconds, by the names of their fields; --smoke takes them, but
            for those of flags that are typed beside it, in place of the flagfiles' values and the defaults. Defaults to
            None, no such flag.
        **defaults: as in `define`.

    Returns:
        A value of the dataclass.
    """

    def parsed(argv):
        values = flag_set()
        define(values, title, group, helps, **defaults)
        if smoke is not None:
            define_one(values, title, "smoke", bool, False, "tries everything with few and small runs, in seconds")
        parse(values, argv, parser)
        return values

    values = parsed(argv)
    chosen = typed(values, group)
    if smoke is not None and values["smoke"].value:
        small = {**smoke, "run_dir": f"{chosen['run_dir']}_smoke"}
        beside = parsed(flagfiles.typed(argv))
        chosen |= {name: typed(beside, group)[name] if beside[name].present else small[name] for name in small}
    settings = group(**chosen)
    refuse_typed(values, settings.unread)
    return settings


def parse(values: absl_flags.FlagValues, argv: Sequence[str], parser: Callable) -> None:
    """Reads a command line into a flag set; `--help` and `--helpfull` end the process with what the flags are."""
    for name, explained in (("help", "lists the flags on one screen"), ("helpfull", "explains every flag")):
        absl_flags.DEFINE_boolean(name, False, explained, flag_values=values, module_name=help_page.TITLE)
    positional = values(flagfiles.expanded(argv))[1:]
    if values["help"].value or values["helpfull"].value:
        print(help_page.text(values, argv[0], parser, full=values["helpfull"].value))
        sys.exit(0)
    if positional:
        raise config.ConfigError(f"Flags start with two dashes (Received: {positional[0]}); write --name=value")
    for name in values:
        empty = values[name].present and values[name].value == ""
        config.require(not empty, name, "must not be empty", "", "leave it out")


def refuse_typed(values: absl_flags.FlagValues, unread: Mapping[str, str]) -> None:
    """Refuses flags that were typed, although the binary does not read them together with the others.

    Args:
        values: the flag set.
        unread: the names of these flags, each with the constraint that the message states.
    """
    for name, constraint in unread.items():
        value = values[name].value
        received = ",".join(value) if isinstance(value, list) else value
        config.require(not values[name].present, name, constraint, received, "leave it out")


def typed(values: absl_flags.FlagValues, group: Any) -> dict[str, Any]:
    """The values of the flags that have the name of a field of a dataclass."""
    found = {field.name: values[field.name].value for field in dataclasses.fields(group) if field.name in values}
    for field in dataclasses.fields(group):
        kind = _listed(field.type)
        if kind is not None and found.get(field.name) is not None:
            found[field.name] = _READ_LIST[kind](values, field.name)
    return found


def whole_numbers(values: absl_flags.FlagValues, name: str) -> tuple[int, ...]:
    """The whole numbers that a flag lists.

    Raises:
        ConfigError: if it lists something else.
    """
    listed = values[name].value
    digits = all(number.isdecimal() for number in listed)
    config.require(digits, name, "must list whole numbers", ",".join(listed), "separate them by commas, such as 16,32")
    return tuple(map(int, listed))


def numbers(values: absl_flags.FlagValues, name: str) -> tuple[float, ...]:
    """The numbers that a flag lists.

    Raises:
        ConfigError: if it lists something else.
    """
    listed = values[name].value
    try:
        return tuple(map(float, listed))
    except ValueError:
        received = f"Received: {name}={','.join(listed)}"
        way_out = "separate them by commas, such as 0,0.5"
        raise config.ConfigError(f"`--{name}` must list numbers ({received}); {way_out}") from None


def one_of(what: str, choices: Sequence[str]) -> str:
    """A help text that lists the choices."""
    return f"{what} ({' | '.join(choices)})"


def _strings(values: absl_flags.FlagValues, name: str) -> tuple[str, ...]:
    return tuple(values[name].value)


_READ_LIST = {int: whole_numbers, float: numbers, str: _strings}


def _kind(annotation: Any) -> type:
    """int of both `int` and `int | None`."""
    return next(kind for kind in _alternatives(annotation) if kind in _DEFINE)


def _listed(annotation: Any) -> type | None:
    """int of both `tuple[int, ...]` and `tuple[int, ...] | None`; None of what is no tuple of numbers or strings."""
    tuples = (kind for kind in _alternatives(annotation) if typing.get_origin(kind) is tuple)
    return next((typing.get_args(kind)[0] for kind in tuples if typing.get_args(kind)[0] in _READ_LIST), None)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
