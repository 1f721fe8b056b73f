"""The key of an optimizer's noise, and the count of what was released with it.

Noise is a function of (key, generation, step). Two releases with the same three would cancel in their difference, so a
private optimizer counts: a step that is not above all steps released before opens a new generation, whose noise is
independent. The count lives where neither Keras nor TensorFlow saves or restores, so that a restored `iterations` does
not bring it back.

    key = NoiseKey(None)                                  # a secret from the operating system
    generation = key.generation(step, release=True)       # 0, until a step comes again
    key.assign(None)                                      # another secret; the count begins anew
"""

import tensorflow as tf

from noisy_sgd import checks, keys

_SECRET_BYTES = 16


class NoiseKey:
    """Holds the 128-bit noise key, and counts releases, outside everything that Keras or TensorFlow saves.

    The key is a variable, so that no traced graph contains it. Under a strategy of several workers all hold the chief's
    key, whatever each of them was given: noise of two keys would be no share of one draw. A copy of a secret key is
    another secret.

    Args:
        seed: an integer; bytes, a secret; or None for a secret from the operating system.

    Raises:
        ValueError: for anything else, or a secret of less than 16 bytes.
    """

    __slots__ = ("seed", "variable", "_counts")

    def __init__(self, seed: int | bytes | None):
        self.seed, key = _seed_and_key(seed)
        self.variable = _of_the_chief(key)
        # The generation, and the first step that was not released in it. Every replica counts the same for itself.
        self._counts = tf.Variable(
            [0, 0],
            dtype=tf.int64,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name="noise_counts",
        )

    def assign(self, seed: int | bytes | None) -> None:
        """Takes the key of another seed or secret; under several workers, called by all of them.

        The count begins anew: the same integer or the same bytes again replay their noise.
        """
        self.seed, key = _seed_and_key(seed)
        with getattr(self.variable, "distribute_strategy", tf.distribute.get_strategy()).scope():
            self.variable.assign(_of_the_chief(key).read_value())
            self._counts.assign([0, 0])

    def generation(self, step: tf.Tensor, *, release: bool) -> tf.Tensor:
        """The generation that the noise of a step belongs to, on this replica.

        Args:
            step: scalar integer.
            release: whether noise of this step is about to be released; False only looks.

        Returns:
            Scalar int64.
        """
        step = tf.cast(step, tf.int64)
        generation, unreleased = tf.unstack(tf.convert_to_tensor(self._counts))
        generation += tf.cast(step < unreleased, tf.int64)
        if release:
            self._counts.assign(tf.stack([generation, step + 1]))
        return generation

    def __repr__(self) -> str:
        return "NoiseKey(...)"

    def __deepcopy__(self, memo):
        return NoiseKey(self.seed)


def _of_the_chief(key: tuple[int, int]) -> tf.Variable:
    # A variable's first value is the chief's on every worker; what is assigned later stays each worker's own.
    return tf.Variable(key, dtype=tf.int64, trainable=False, name="noise_key")


def _seed_and_key(seed: int | bytes | None) -> tuple[int | None, tuple[int, int]]:
    """The seed that may be shown, None for a secret, and the key."""
    secret = keys.secret() if seed is None else seed
    if isinstance(secret, bytes):
        if len(secret) < _SECRET_BYTES:
            raise ValueError(
                f"`seed` must have at least {_SECRET_BYTES} bytes where it is a secret; noisy_sgd.keys.secret() makes "
                f"one. Received: {len(secret)} bytes"
            )
        return None, keys.derive(secret, "noise")
    number = checks.whole(secret)
    if number is None:
        raise ValueError(f"`seed` must be an integer or a secret. Received: seed of type {type(seed).__name__}")
    return number, keys.derive(number, "noise")
