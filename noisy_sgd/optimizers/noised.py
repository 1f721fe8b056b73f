"""What all optimizers with noise share: the key, the draw of a step, and the refusal of arguments that break the noise.

`Noised` is the first base class before a Keras optimizer: `class NoisySGD(Noised, keras.optimizers.SGD)`. It decides
when noise is drawn and with which key. The mechanism decides what is added.

Covered by tests/optimizers/noisy_sgd_test.py and noise_key_test.py.
"""

import keras
import tensorflow as tf

from noisy_sgd import checks, keras_internals
from noisy_sgd.mechanisms import mechanism
from noisy_sgd.optimizers import foreign_arguments, noise_key

_NOT_PER_EXAMPLE = "it clips the batch's gradient on each replica; use noisy_sgd.DPSGD to clip each example's"
REFUSED = {
    "clipnorm": _NOT_PER_EXAMPLE,
    "clipvalue": _NOT_PER_EXAMPLE,
    "global_clipnorm": _NOT_PER_EXAMPLE,
    "gradient_accumulation_steps": "noise enters once per logical batch; use PrivateModel.compile(microbatch_size=...)",
    "loss_scale_factor": "clipping and noise must see bare gradients; use mixed_bfloat16, which needs no scaling",
    "ema_overwrite_frequency": "it fails under tf.distribute; leave it out",
}


class Noised:
    """A mixin before a Keras optimizer: refuses arguments that break the noise, and holds the key.

    Args:
        *args: of the Keras optimizer.
        seed: an integer; or None for a secret from the operating system.
        **kwargs: of the Keras optimizer.

    Raises:
        ValueError: for a Keras argument that would break the noise (clipnorm, clipvalue, global_clipnorm,
            gradient_accumulation_steps, loss_scale_factor, ema_overwrite_frequency), or an argument name of another
            library.
    """

    def __new__(cls, *args, **kwargs):
        """Refuses foreign names before Python reports the arguments that are missing under our names."""
        foreign_arguments.refuse(kwargs)
        return super().__new__(cls)

    def __init__(self, *args, seed: int | None, **kwargs):
        for name, value in kwargs.items():
            if value is not None and name in REFUSED:
                raise ValueError(f"`{name}` is not supported: {REFUSED[name]}. Received: {name}={value!r}")
        super().__init__(*args, **{name: value for name, value in kwargs.items() if name not in REFUSED})
        self.seed = None if seed is None else checks.seed("seed", seed)
        self._noise_key = noise_key.NoiseKey(self.seed)

    def _take_noise_of(self, seed: int | bytes | None, first_step: int = 0) -> None:
        self._noise_key.assign(seed, first_step)
        self.seed = self._noise_key.seed

    def _draw(self) -> mechanism.Draw:
        """This replica's share of this step's noise, of the first generation."""
        replica_context = tf.distribute.get_replica_context()
        replicas = 1 if replica_context is None else replica_context.num_replicas_in_sync
        return mechanism.Draw(step=tf.convert_to_tensor(self.iterations), share=1.0 / replicas)

    def _variables_of(self, trainable_variables) -> list:
        if trainable_variables is None:
            return keras_internals.optimizer_weights(self)
        variables = list(trainable_variables)
        if not self.built:
            self.build(variables)
        return variables

    def get_config(self) -> dict:
        """The Keras optimizer's arguments without those that are refused, and the seed."""
        config = {name: value for name, value in super().get_config().items() if name not in REFUSED}
        return {**config, "seed": self.seed}


def first_step_of_fit(optimizer: keras.optimizers.Optimizer) -> int:
    """The first step of the next `fit`'s noise: a `fit` is an attempt of its own, unless a seed repeats its noise."""
    return 0 if getattr(optimizer, "seed", None) is not None else int(optimizer.iterations.numpy())


def is_noised(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the optimizer adds noise of ours."""
    return isinstance(optimizer, Noised)
