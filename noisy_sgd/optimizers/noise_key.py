"""The key of an optimizer's noise, and the count of what was released with it.

Noise is a function of (key, generation, step). Two releases with the same three would cancel in their difference, so a
private optimizer counts: a step that is not above all released steps starts a new generation, whose noise is
independent. Neither Keras nor TensorFlow saves or restores the count, so that a restored `iterations` does not reset
it. A step that does not follow the last released one starts a new attempt: noise that is correlated over steps uses no
draw from before it.

    key = NoiseKey(None)                                  # a secret from the operating system
    generation, first = key.place(step, release=True)     # 0, 0, until a step is repeated
    key.assign(None)                                      # another secret; the count starts again
"""

import tensorflow as tf

from noisy_sgd import checks, keys

_SECRET_BYTES = 16


class NoiseKey:
    """Holds the 128-bit noise key, and counts releases, outside everything that Keras or TensorFlow saves.

    The key is a variable, so that no traced graph contains it. Under a strategy of several workers, all hold the
    chief's key, whatever seed each of them was given: shares of noise must come from one draw. A copy of a secret key
    is another secret.

    Args:
        seed: an integer; bytes, a secret; or None for a secret from the operating system.

    Raises:
        ValueError: for anything else, or a secret of less than 16 bytes.
    """

    __slots__ = ("seed", "variable", "_counts")

    def __init__(self, seed: int | bytes | None):
        self.seed, key = _seed_and_key(seed)
        self.variable = _of_the_chief(key)
        # The generation, the first step that was not released in it (-1: nothing was released with this key), and the
        # first step of the attempt. Every replica keeps the same count.
        self._counts = tf.Variable(
            [0, -1, 0],
            dtype=tf.int64,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            name="noise_counts",
        )

    def assign(self, seed: int | bytes | None, first_step: int = 0) -> None:
        """Takes the key of another seed or secret; with several workers, all of them call it.

        The count starts again: the same integer or the same bytes replay the same noise.

        Args:
            seed: as in the constructor.
            first_step: the first step of the attempt that the key is for. An attempt that is replayed from a later step
                on needs it to replay its noise. Defaults to 0.
        """
        self.seed, key = _seed_and_key(seed)
        with getattr(self.variable, "distribute_strategy", tf.distribute.get_strategy()).scope():
            self.variable.assign(_of_the_chief(key).read_value())
            self._counts.assign([0, -1, first_step])

    def place(self, step: tf.Tensor, *, release: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The generation that the noise of a step belongs to, and the first step of the attempt, on this replica.

        Args:
            step: scalar integer.
            release: whether noise of this step is about to be released; False does not count it.

        Returns:
            Two scalars, int64.
        """
        step = tf.cast(step, tf.int64)
        generation, unreleased, first = tf.unstack(tf.convert_to_tensor(self._counts))
        generation += tf.cast(step < unreleased, tf.int64)
        first = tf.where((unreleased >= 0) & (step != unreleased), step, first)
        if release:
            self._counts.assign(tf.stack([generation, step + 1, first]))
        return generation, first

    def __repr__(self) -> str:
        return "NoiseKey(...)"

    def __deepcopy__(self, memo):
        return NoiseKey(self.seed)


def _of_the_chief(key: tuple[int, int]) -> tf.Variable:
    # A variable's first value is the chief's on every worker; a later assignment stays on its worker.
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
