"""What a user asked for, checked: one frozen dataclass per flag group, and no TensorFlow.

Every rule about what may be typed is in this package. What cannot work ends in one sentence before anything heavy is
imported or anything is written. A value that the flags leave open is resolved here, so that a record shows what was
used.

    noisy = config.Training(algorithm="noisy_sgd", batch_size=64, effective_noise=0.01)
    config.Config(training=noisy).resolved()["algorithm"]["noise_multiplier"]    # 0.64: sigma / B times B
"""

from noisy_sgd.config.configuration import Config
from noisy_sgd.config.data import AUGMENTATIONS, CORRUPT_IMAGES, DATASETS, Data
from noisy_sgd.config.model import CONVENTIONS, MODELS, PRECISIONS, Model, pixel_bounds
from noisy_sgd.config.noise_correlation import parsed as parsed_noise_correlation
from noisy_sgd.config.rules import ConfigError, require, require_at_least, require_choice, require_distinct
from noisy_sgd.config.run import STRATEGIES, Run
from noisy_sgd.config.sweeps import Sweep, sweep
from noisy_sgd.config.training import ALGORITHMS, CLIPPINGS, OPTIMIZERS, SAMPLINGS, Training

__all__ = [
    "ALGORITHMS",
    "AUGMENTATIONS",
    "CLIPPINGS",
    "CONVENTIONS",
    "CORRUPT_IMAGES",
    "Config",
    "ConfigError",
    "DATASETS",
    "Data",
    "MODELS",
    "Model",
    "PRECISIONS",
    "Run",
    "OPTIMIZERS",
    "SAMPLINGS",
    "STRATEGIES",
    "Sweep",
    "Training",
    "parsed_noise_correlation",
    "pixel_bounds",
    "require",
    "require_at_least",
    "require_choice",
    "require_distinct",
    "sweep",
]
