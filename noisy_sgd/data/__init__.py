"""What is trained on: image sets, synthetic regressions, and the batches that a sampling scheme draws.

`whole` and `padded` draw batches from arrays in memory, `stream` from an image set that may be larger.
"""

from noisy_sgd import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {
        "ImageSet": "noisy_sgd.data.bundled",
        "load": "noisy_sgd.data.bundled",
        "num_microbatches": "noisy_sgd.data.streaming",
        "padded": "noisy_sgd.data.array_batches",
        "stream": "noisy_sgd.data.streaming",
        "whole": "noisy_sgd.data.array_batches",
    },
    ("augmentation", "canaries", "imagenet", "label_noise", "regression"),
)
