"""Every error message of the package, read from the source: it names its argument, the value, and the way out."""

import ast
import pathlib
import re

from absl.testing import absltest

HOME = pathlib.Path(__file__).parents[1] / "noisy_sgd"
# These errors are about what the caller gave or has: arguments, flags and files.
KINDS = ("ValueError", "ConfigError")
# Caught where it is raised, and made part of a sentence that names the file.
INSIDE = "the file is truncated or damaged"
# The operating system's own reason, such as a full disk, says what to do.
OF_THE_SYSTEM = "{os.fspath(path)} cannot be {action}: {reason or type(error).__name__}"
# An argument or a flag stands between backticks; a name that is only known at run time is a value in braces.
NAMED = re.compile(r"`\{?[\w.\-(){}=' ]+|\{[^}]*\}")
VALUE = re.compile(r"[Rr]eceived\b|\{")
WAY_OUT = re.compile(
    r"\b(must|needs?|choose|pass|use|give|remove|leave|wait|repair|resume|write|call|make|take|instead|train|run|share|set"
    r"|start|not supported|another library's)\b|\{way_out\}"
)


def text(node, constants):
    """The text of a message, values as {expression}; None for one that is not written here."""
    match node:
        case ast.Constant(value=str()):
            return node.value
        case ast.Name() if node.id in constants:
            return constants[node.id]
        case ast.FormattedValue():
            return text(node.value, constants) or "{" + ast.unparse(node.value) + "}"
        case ast.JoinedStr():
            return "".join(text(part, constants) for part in node.values)
        case ast.BinOp(op=ast.Add()):
            sides = text(node.left, constants), text(node.right, constants)
            return None if None in sides else "".join(sides)
    return None


def messages(source):
    """Line, and text, of every message that the source raises."""
    tree, constants = ast.parse(source), {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = text(node.value, constants)
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(args=[message, *_])) if ast.unparse(node.exc.func).endswith(KINDS):
                found = text(message, constants)
                if found is not None and not found.startswith((INSIDE, OF_THE_SYSTEM)):
                    yield node.lineno, found


def missing(message):
    """Which of the three a message lacks."""
    parts = {"the argument": NAMED, "the value": VALUE, "the way out": WAY_OUT}
    return [name for name, pattern in parts.items() if not pattern.search(message)]


class MessagesTest(absltest.TestCase):
    def test_every_message_names_its_argument_its_value_and_the_way_out(self):
        found, count = [], 0
        for path in sorted(HOME.rglob("*.py")):
            for line, message in messages(path.read_text(encoding="utf-8")):
                count += 1
                if missing(message):
                    found.append(f"{path.relative_to(HOME)}:{line} lacks {missing(message)}: {message}")
        self.assertGreater(count, 150)
        self.assertEmpty(found, "\n".join(found))

    def test_a_bad_message_is_found(self):
        self.assertEqual(missing("wrong"), ["the argument", "the value", "the way out"])
        self.assertEqual(missing("`size` must be positive"), ["the value"])
        self.assertEqual(missing("`size` of wrong sign. Received: {size}"), ["the way out"])
        source = '_WHY = "is bad"\ndef check(size):\n    raise ValueError(f"`size` {_WHY}. Received: {size}")'
        self.assertEqual(list(messages(source)), [(3, "`size` is bad. Received: {size}")])
        self.assertEmpty(missing("`size` must be positive. Received: size={size}"))


if __name__ == "__main__":
    absltest.main()
