"""Who may import whom, and who alone may touch what: read from the imports of every module.

`ALLOWED` is the diagram. Bazel says it a second time, see build_files_test.py.
"""

import ast
import pathlib
import re

from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).parents[1]

# A layer is a package or a top-level module of noisy_sgd/, or a part of a package that has a rule of its own.
# Everyone may import `SHARED`, and whoever may import a package may import its parts.
ALLOWED = {
    "lazy": set(),
    "checks": set(),
    "files": set(),
    "keras_internals": set(),
    "machine": set(),
    "keys": {"checks"},
    "config": set(),
    "records": {"machine"},
    "statistics": set(),
    "mechanisms": set(),
    "models": {"models/normalizer_free", "models/group_normalization"},
    "models/normalizer_free": set(),
    "models/group_normalization": set(),
    "data": set(),
    "sampling": set(),
    "privacy": {"sampling"},
    "sde": set(),
    "gradients": {"gradients/layer_rules"},
    "gradients/layer_rules": {"models/normalizer_free", "models/group_normalization"},
    "optimizers": {"gradients", "mechanisms"},
    "training": {"machine", "optimizers", "data", "gradients", "mechanisms", "privacy", "sampling"},
    "runs": {
        "training",
        "optimizers",
        "models",
        "data",
        "mechanisms",
        "privacy",
        "sampling",
        "records",
        "config",
    },
    "toy": {"optimizers", "mechanisms", "models", "data"},
    "studies": {
        "studies/laboratory",
        "toy",
        "sde",
        "runs",
        "training",
        "optimizers",
        "mechanisms",
        "gradients",
        "models",
        "privacy",
        "sampling",
        "data",
        "records",
        "config",
        "statistics",
    },
    "studies/laboratory": {"training", "optimizers", "mechanisms", "gradients", "models", "sampling", "data"},
    "figures": {"records", "statistics"},
    "experiments/benchmarks": {
        "models",
        "sampling",
        "mechanisms",
        "runs",
        "toy",
        "training",
        "data",
        "records",
        "config",
    },
    "experiments": {
        "experiments/benchmarks",
        "studies",
        "runs",
        "toy",
        "training",
        "privacy",
        "sde",
        "data",
        "records",
        "config",
        "statistics",
        "figures",
        "machine",
    },
}

# Everyone may import these; what they import of each other, `ALLOWED` says.
SHARED = ("lazy", "checks", "files", "keras_internals", "keys")

OWNERS = {
    "keras.src": "keras_internals.py",
    "fcntl": "files.py",
    "os.fsync": "files.py",
    "os.rename": "files.py",
    "os.replace": "files.py",
    "np.random": "keys.py",
    "numpy.random": "keys.py",
    "tensorflow_privacy": "mechanisms/tf_privacy.py",
    "absl.flags": "experiments/flags/",
    "matplotlib": "figures/",
}
STRATEGY_OWNER = "training/distribution.py"
STRATEGY = re.compile(
    r"(^|\.)(CentralStorage|CollectiveAllReduce|Mirrored|MultiWorkerMirrored|OneDevice|ParameterServer|TPU)Strategy"
)
CHECKS_OWNER = "checks.py"
PRIVATE_OWNER = "keras_internals.py"
# Names that begin with an underscore and are documented, and what TensorFlow has no public name for, where it is used.
NO_PRIVATE_NAMES = {"_asdict", "_exit", "_replace"}
ALLOWED_PRIVATE_NAMES = {"gradients/engines/example_map.py": {"_functions"}}
TENSORFLOW = ("tensorflow", "keras", "tensorflow_datasets", "tensorflow_privacy", "tensorflow_probability")
WITHOUT_TENSORFLOW = (
    "lazy",
    "checks",
    "config",
    "figures",
    "keys",
    "privacy",
    "records",
    "sampling",
    "sde",
    "statistics",
)
MAY_PRINT = ("experiments", "experiments/benchmarks")


def layer_of(path: str) -> str | None:
    """The layer of "gradients/layer_rules/dense": the longest entry of the diagram that it lies in, or None."""
    parts = path.split("/")
    candidates = ("/".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((candidate for candidate in candidates if candidate in ALLOWED), None)


def parent(layer: str) -> str:
    return layer.split("/")[0]


def may_import(importer: str, imported: str) -> bool:
    shared = set(SHARED) if importer not in SHARED else set()
    return imported in {importer} | shared or bool({imported, parent(imported)} & ALLOWED[importer])


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported_names(tree: ast.AST) -> set[str]:
    """Every dotted name a module imports, at any depth; a relative import keeps its dots in front."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and dotted(node.func) in {"importlib.import_module", "__import__"}:
            names |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return names


def _own_names(tree: ast.AST) -> set[str]:
    """Every name that a module defines: functions, classes, variables and attributes."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and dotted(node.value) == "self":
            names.add(node.attr)
    return names


def _private_attributes(tree: ast.AST) -> set[tuple[str, str]]:
    """(object, attribute) of every attribute that is named, also by getattr, and begins with one underscore."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add((ast.unparse(node.value), node.attr))
        elif isinstance(node, ast.Call) and dotted(node.func) in {"getattr", "hasattr", "setattr", "delattr"}:
            name = node.args[1]
            found.add((ast.unparse(node.args[0]), name.value if isinstance(name, ast.Constant) else ""))
    return {(owner, name) for owner, name in found if re.match("_[a-zA-Z]", name)}


def foreign_private_names(path: str, tree: ast.AST) -> set[str]:
    """Private attributes that another library's objects have, Keras' above all; `super()` is a subclass's own."""
    of_keras = {name for _, name in _private_attributes(ast.parse((ROOT / "noisy_sgd" / PRIVATE_OWNER).read_text()))}
    known = _own_names(tree) | NO_PRIVATE_NAMES | ALLOWED_PRIVATE_NAMES.get(path, set())
    return {
        name
        for owner, name in _private_attributes(tree)
        if owner != "super()" and (name in of_keras or (owner not in {"self", "cls"} and name not in known))
    }


def _tells_numbers_from_bools(tree: ast.AST) -> bool:
    """Whether one condition asks if something is a number and no bool."""
    for node in ast.walk(tree):
        calls = [call for call in ast.walk(node) if isinstance(node, ast.BoolOp) and isinstance(call, ast.Call)]
        types = [call.args[1] for call in calls if dotted(call.func) == "isinstance"]
        names = {dotted(name) for one in types for name in ast.walk(one)}
        if "bool" in names and names & {"int", "float", "numbers.Integral", "numbers.Real", "np.integer"}:
            return True
    return False


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def violations(path: str, source: str) -> list[str]:
    """What a module breaks, one sentence each.

    Args:
        path: of the module, below noisy_sgd/.
        source: its text.
    """
    tree = ast.parse(source)
    imported = imported_names(tree)
    used = imported | {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    layer = layer_of(path.removesuffix(".py"))
    found = []

    if layer is None and path != "__init__.py":
        found.append(f"{path} is in no layer of the diagram")
    for name in sorted(imported):
        if name.startswith("."):
            found.append(f"{path} imports {name}: only absolute imports")
        elif _is_in(name, "noisy_sgd"):
            target = layer_of(name.removeprefix("noisy_sgd").removeprefix(".").replace(".", "/"))
            if target is None:
                found.append(f"{path} imports {name}, which is in no layer of the diagram")
            elif target not in SHARED and layer is None or layer is not None and not may_import(layer, target):
                found.append(f"{path} imports {name}: {layer} may not import {target}")
            elif layer in WITHOUT_TENSORFLOW and target == "keras_internals":
                found.append(f"{path} imports {name}: {layer} does without TensorFlow")
        elif layer in WITHOUT_TENSORFLOW and any(_is_in(name, package) for package in TENSORFLOW):
            found.append(f"{path} imports {name}: {layer} does without TensorFlow")
    for package, owner in OWNERS.items():
        if not path.startswith(owner) and any(_is_in(name, package) for name in used):
            found.append(f"{path} touches {package}, which belongs to {owner}")
    if path != PRIVATE_OWNER:
        for name in sorted(foreign_private_names(path, tree)):
            found.append(f"{path} touches the private {name}, which belongs to {PRIVATE_OWNER}")
    if path != CHECKS_OWNER and _tells_numbers_from_bools(tree):
        found.append(f"{path} tells numbers from bools, which belongs to {CHECKS_OWNER}")
    if path != STRATEGY_OWNER and any(STRATEGY.search(name) for name in used):
        found.append(f"{path} names a distribution strategy, which belongs to {STRATEGY_OWNER}")
    if layer not in MAY_PRINT:
        if used & {"os.environ", "os.environb", "os.getenv"}:
            found.append(f"{path} reads the environment")
        if any(isinstance(node, ast.Call) and dotted(node.func) == "print" for node in ast.walk(tree)):
            found.append(f"{path} prints")
    return found


class ImportsTest(parameterized.TestCase):
    def test_every_module_keeps_to_the_diagram(self):
        home = ROOT / "noisy_sgd"
        modules = sorted(home.rglob("*.py"))
        self.assertNotEmpty(modules)
        found = [
            violation
            for module in modules
            for violation in violations(module.relative_to(home).as_posix(), module.read_text())
        ]
        self.assertEmpty(found, "\n".join(found))

    @parameterized.parameters(
        ("sde/brownian.py", "from noisy_sgd.training import loop", "sde may not import training"),
        ("data/images.py", "import noisy_sgd.models.nf_resnet", "data may not import models"),
        ("gradients/clipping.py", "from noisy_sgd.models import normalizer_free", "may not import models/norm"),
        ("gradients/layer_rules/dense.py", "from noisy_sgd.models import nf_resnet", "may not import models"),
        ("mechanisms/gaussian.py", "def f():\n    from noisy_sgd import optimizers", "may not import optimizers"),
        ("models/wide_resnet.py", "import importlib\nimportlib.import_module('noisy_sgd.data')", "may not import data"),
        ("experiments/train.py", "from noisy_sgd import optimizers", "experiments may not import optimizers"),
        ("checks.py", "from noisy_sgd import keys", "checks may not import keys"),
        ("checks.py", "import tensorflow as tf", "checks does without TensorFlow"),
        ("studies/sde_error.py", "from noisy_sgd.experiments import flags", "studies may not import experiments"),
        ("optimizers/dp_sgd.py", "import noisy_sgd", "noisy_sgd, which is in no layer"),
        ("optimizers/dp_sgd.py", "from noisy_sgd import NoisySGD", "in no layer"),
        ("__init__.py", "from noisy_sgd.optimizers import dp_sgd", "may not import optimizers"),
        ("figures/images.py", "from . import style", "only absolute imports"),
        ("helpers/strings.py", "", "in no layer"),
        ("privacy/tan.py", "import tensorflow as tf", "privacy does without TensorFlow"),
        ("config/run.py", "import keras", "config does without TensorFlow"),
        ("mechanisms/gaussian.py", "from tensorflow_privacy import privacy", "belongs to mechanisms/tf_privacy.py"),
        ("training/loop.py", "from absl import flags", "belongs to experiments/flags/"),
        ("experiments/train.py", "import absl\nabsl.flags.FLAGS", "belongs to experiments/flags/"),
        ("experiments/reproduce.py", "from matplotlib import pyplot", "belongs to figures/"),
        ("training/loop.py", "import tensorflow as tf\ntf.distribute.MirroredStrategy()", "belongs to training/dist"),
        ("training/loop.py", "from tensorflow.distribute import TPUStrategy", "belongs to training/distribution.py"),
        ("data/images.py", "import os\nos.environ['HOME']", "reads the environment"),
        ("data/images.py", "from os import getenv", "reads the environment"),
        ("training/loop.py", "print(1)", "prints"),
        ("privacy/tan.py", "from noisy_sgd import keras_internals", "privacy does without TensorFlow"),
        ("training/loop.py", "from keras.src import backend", "keras.src, which belongs to keras_internals.py"),
        ("training/loop.py", "import keras\nkeras.src.backend", "keras.src, which belongs to keras_internals.py"),
        ("gradients/clipping.py", "def f(model):\n    return model._flatten_layers()", "the private _flatten_layers"),
        ("gradients/clipping.py", "def f(layer):\n    return layer.cell._secret", "the private _secret, which belongs"),
        ("training/loop.py", "mask = getattr(tensor, '_keras_mask', None)", "the private _keras_mask"),
        ("models/mlp.py", "class A(B):\n    def f(self):\n        return self._trainable_variables", "_trainable_v"),
        ("models/mlp.py", "class A(B):\n    def f(self):\n        self._seed_generators = []", "_seed_generators"),
        ("data/images.py", "import numpy as np\nnp.random.default_rng(0)", "np.random, which belongs to keys.py"),
        ("data/images.py", "from numpy import random\nrandom.Philox(3)", "numpy.random, which belongs to keys.py"),
        ("data/images.py", "from numpy.random import Generator", "numpy.random, which belongs to keys.py"),
        ("toy/draws.py", "isinstance(n, bool) or not isinstance(n, int | np.integer)", "belongs to checks.py"),
        ("toy/draws.py", "x = isinstance(n, numbers.Real) and not isinstance(n, bool)", "tells numbers from bools"),
        ("runs/callbacks.py", "import fcntl", "fcntl, which belongs to files.py"),
        ("runs/callbacks.py", "from os import fsync", "os.fsync, which belongs to files.py"),
        ("runs/callbacks.py", "import os\nos.replace('a', 'b')", "os.replace, which belongs to files.py"),
    )
    def test_a_planted_violation_is_found(self, path, source, expected):
        self.assertRegex("\n".join(violations(path, source)), re.escape(expected))

    @parameterized.parameters(
        ("optimizers/dp_sgd.py", "from noisy_sgd import checks, keys\nfrom noisy_sgd.gradients import clipping"),
        ("keys.py", "import numpy as np\nfrom noisy_sgd import checks\nnp.random.default_rng(0)"),
        ("gradients/engines/book_keeping.py", "from noisy_sgd.gradients.layer_rules import dense"),
        ("gradients/layer_rules/convolution.py", "from noisy_sgd.models import normalizer_free"),
        ("runs/builders.py", "from noisy_sgd.models import nf_resnet, normalizer_free"),
        ("training/distribution.py", "import tensorflow as tf\ntf.distribute.MirroredStrategy()"),
        ("training/loop.py", "import tensorflow as tf\ndef run(strategy: tf.distribute.Strategy): ..."),
        ("privacy/accounting.py", "import dp_accounting\nimport numpy as np"),
        ("experiments/train.py", "from absl import app\nfrom noisy_sgd.experiments import flags\nprint(1)"),
        ("figures/images.py", "import matplotlib.figure"),
        ("keras_internals.py", "import keras\nfrom keras.src import backend\nkeras.layers.Dense(1)._path"),
        ("training/loop.py", "class A(B):\n    def _symbolic_build(self):\n        super()._symbolic_build()"),
        ("toy/draws.py", "if not isinstance(flag, bool) and flag is not None: ..."),
        ("records.py", "class A:\n    def _b(self): ...\ndef f(a):\n    return a._b()"),
        (
            "training/loop.py",
            "class A(B):\n    def f(self):\n        return self._inherited, state._replace(a=1)",
        ),
    )
    def test_what_is_allowed_is_not_found(self, path, source):
        self.assertEmpty(violations(path, source))


if __name__ == "__main__":
    absltest.main()
