"""Keras optimizers with noise: `NoisySGD` without clipping, and the private ones, which take clipped sums.

`class DPLion(PrivateUpdate, keras.optimizers.Lion)` makes a private version of any other Keras optimizer.
"""

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
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
        "PrivateUpdate": "noisy_sgd.optimizers.privatized",
        "dp_sgld": "noisy_sgd.optimizers.langevin",
    },
)
