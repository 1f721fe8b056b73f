"""Noisy-SGD and DP-SGD for Keras 3 on TensorFlow: gradient noise, per-example clipping, and the privacy they buy.

Importing the package imports nothing heavy; a public name or a submodule is loaded when it is first used, and a class
also when Keras loads a saved model that holds one.

    import noisy_sgd
    optimizer = noisy_sgd.DPSGD(0.5, l2_norm_clip=1.0, noise_multiplier=1.1, batch_size=256)
    epsilon = noisy_sgd.privacy.epsilon(
        1.1, batch_size=256, num_examples=60_000, num_steps=1_000, delta=1e-5, sampling="shuffled"
    )
"""

import importlib
import importlib.abc
import importlib.util
import platform
import sys

from noisy_sgd import lazy

# pyproject.toml reads it too.
__version__ = "0.2.0"

_NAMES = {
    "AdaptiveClipping": "noisy_sgd.mechanisms.adaptive_clipping",
    "ClippedSum": "noisy_sgd.gradients.clipping",
    "CorrelatedNoise": "noisy_sgd.mechanisms.correlated",
    "DPAdam": "noisy_sgd.optimizers.adam",
    "DPAdamW": "noisy_sgd.optimizers.adam",
    "DPExtrapSGD": "noisy_sgd.optimizers.extrapolation",
    "DPLARS": "noisy_sgd.optimizers.lars",
    "DPSGD": "noisy_sgd.optimizers.sgd",
    "DPSparseSGD": "noisy_sgd.optimizers.sparsification",
    "DiceSGD": "noisy_sgd.optimizers.error_feedback",
    "ExtrapSGD": "noisy_sgd.optimizers.extrapolation",
    "LARS": "noisy_sgd.optimizers.lars",
    "NoisyExtrapSGD": "noisy_sgd.optimizers.extrapolation",
    "NoisyLARS": "noisy_sgd.optimizers.lars",
    "NoisySGD": "noisy_sgd.optimizers.sgd",
    "PrivacyBudget": "noisy_sgd.training.budget",
    "PrivateModel": "noisy_sgd.training.private_model",
    "PrivateUpdate": "noisy_sgd.optimizers.privatized",
    "dp_sgld": "noisy_sgd.optimizers.langevin",
    "clipped_gradient_sum": "noisy_sgd.gradients.clipped_sum",
}

# What a saved model may hold of the package: Keras' registered name, without "noisy_sgd>", and the module.
_SAVED = {
    **{
        name: module
        for name, module in _NAMES.items()
        if module.startswith("noisy_sgd.optimizers.") and name not in ("PrivateUpdate", "dp_sgld")
    },
    **{name: _NAMES[name] for name in ("AdaptiveClipping", "CorrelatedNoise", "PrivateModel")},
    "DiagonalLinearNetwork": "noisy_sgd.models.diagonal_linear",
    "GroupNormalization": "noisy_sgd.models.group_normalization",
    "LinearLeastSquares": "noisy_sgd.models.least_squares",
    "SkipGain": "noisy_sgd.models.normalizer_free",
    "WeightStandardizedConv2D": "noisy_sgd.models.normalizer_free",
}
_KERAS_REGISTRY = "keras.src.saving.object_registration"

_SUBMODULES = (
    "config",
    "data",
    "experiments",
    "figures",
    "gradients",
    "keys",
    "mechanisms",
    "models",
    "optimizers",
    "privacy",
    "records",
    "runs",
    "sampling",
    "sde",
    "studies",
    "toy",
    "training",
)


def _refuse_python(version, received: str) -> None:
    """Raises ImportError below Python 3.10, and above 3.13 without TensorFlow, which has no wheel of 2.21 there."""
    if version < (3, 10) or (version > (3, 13) and importlib.util.find_spec("tensorflow") is None):
        raise ImportError(
            f"noisy_sgd needs Python 3.10, 3.11, 3.12 or 3.13 (received Python {received}): to run it on one that "
            "works, put `uv run --python 3.11 --isolated --no-project --with-requirements requirements.txt` before "
            "your command."
        )


_refuse_python(sys.version_info[:2], platform.python_version())


class _SavedClass:
    """Stands in Keras' registry for a class until its module is imported, which registers the class itself."""

    def __init__(self, name: str):
        self._name = name

    def from_config(self, config):
        return getattr(importlib.import_module(_SAVED[self._name]), self._name).from_config(config)


def _register_saved(registry) -> None:
    """Tells Keras' registry, its module, of the classes that a saved model may hold."""
    for name in _SAVED:
        registry.get_custom_objects().setdefault(f"noisy_sgd>{name}", _SavedClass(name))


class _WhenKerasIsImported(importlib.abc.MetaPathFinder):
    """Calls `_register_saved` once Keras' registry is imported: Keras itself imports no module for a saved model."""

    def find_spec(self, fullname, path, target=None):
        if fullname != _KERAS_REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        execute = spec.loader.exec_module

        def execute_and_register(module):
            execute(module)
            _register_saved(module)

        spec.loader.exec_module = execute_and_register
        return spec


if _KERAS_REGISTRY in sys.modules:
    _register_saved(sys.modules[_KERAS_REGISTRY])
else:
    sys.meta_path.insert(0, _WhenKerasIsImported())


__getattr__, __dir__, __all__ = lazy.attach(__name__, _NAMES, _SUBMODULES)
