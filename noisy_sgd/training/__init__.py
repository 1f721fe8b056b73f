"""Training: `PrivateModel` with its `fit`, the privacy budget that ends a training, and the binaries' training loop.

`loop.train` streams microbatches through the same model under any `tf.distribute` strategy of `distribution`.
"""

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "PrivacyBudget": "noisy_sgd.training.budget",
        "PrivateModel": "noisy_sgd.training.private_model",
        "WeightAverage": "noisy_sgd.training.weight_average",
    },
    ("distribution", "loop"),
)
