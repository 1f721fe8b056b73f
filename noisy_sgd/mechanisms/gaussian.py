"""Gaussian noise on a sum of gradients, as tensorflow-privacy queries whose draws are functions of (key, step).

tensorflow-privacy's own Gaussian query draws from a stateful generator. Under tf.distribute every replica would draw
its own noise, and the sum would not have the stated noise. Here all noise of a step is one flat stateless draw Z_k,
split over the tensors. Every replica draws the same Z_k, and each of R replicas adds its share Z_k / R, so that the
all-reduced sum contains Z_k once:

    sum_i clip_C(g_i) + sigma C Z_k    (DP-SGD, eq. (2) times B)        sum_i g_i + s Z_k    (Noisy-SGD, eq. (11) times
    B)

    query = gaussian.GaussianSumQuery(l2_norm_clip=1.0, stddev=2.5, key=tf.constant(keys.derive(7, "noise"), tf.int64))
    noised, state, event = query.get_noised_result(clipped_sums, query.initial_global_state())
"""

import math

import dp_accounting
import tensorflow as tf

from noisy_sgd.mechanisms import mechanism, tf_privacy

GEOMETRIES = ("isotropic", "multiplicative", "mirrored")
# Noise of at most this size may be drawn while the sums are computed, which is faster on idle cores.
DRAWN_EARLY_BYTES = 16 * 2**20
# In XLA's programs, draws of more numbers than this are made in whole tiles of a TPU's memory: rows of 128 numbers.
LONGEST_LIST = 2**16
ROW, ROWS_AT_A_TIME = 128, 16


def flat_normal(shapes, dtype, key, step, generation=0) -> list[tf.Tensor]:
    """One standard normal draw of all the given shapes together, split into one tensor per shape.

    Args:
        shapes: static shapes.
        dtype: float32 or float64.
        key: [2] int64. TensorFlow maps the 128 bits of a seed one to one, so that keys and steps never collide.
        step: scalar integer.
        generation: scalar integer. Defaults to 0.

    Returns:
        One tensor per shape, independent of each other and of every other (key, step, generation).
    """
    sizes = [tf.TensorShape(shape).num_elements() for shape in shapes]
    seed = tf.stack([key[0] + tf.cast(generation, tf.int64), key[1] + tf.cast(step, tf.int64)])
    flat = _normal(sum(sizes), dtype, seed)
    parts = zip(tf.split(flat, sizes), shapes, strict=True)
    return [part if len(shape) == 1 else tf.reshape(part, shape) for part, shape in parts]


def _normal(size: int, dtype, seed) -> tf.Tensor:
    """`tf.random.stateless_normal` of [size] numbers: its own kernel, or the same pairs from the same random bits.

    TensorFlow's kernel for CPUs makes the pairs one at a time, in twice the time. XLA's is an array [size / 2, 2]; on a
    TPU each pair then takes a row of memory for 128 numbers.
    """

    def native():
        return tf.random.stateless_normal([size], seed, dtype=dtype, alg="philox")

    def vectorized():
        uniform = tf.random.stateless_uniform([(size + 1) // 2, 2], seed, dtype=dtype, alg="philox")
        return box_muller(uniform)[:size]

    def in_rows():
        rows = -(-size // (ROW * ROWS_AT_A_TIME)) * ROWS_AT_A_TIME
        uniform = tf.random.stateless_uniform([rows, ROW], seed, dtype=dtype, alg="philox")
        return tf.reshape(box_muller_in_place(uniform), [-1])[:size]

    # The index of the device in the list, and 2 for others and in programs of XLA, which keep only that branch.
    device = tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"])
    return tf.switch_case(device, [vectorized, native], default=in_rows if size > LONGEST_LIST else native)


def box_muller(uniform: tf.Tensor) -> tf.Tensor:
    """Two independent standard normal numbers from each two uniform ones u, v: sqrt(-2 log u) (sin, cos)(2 pi v).

    Args:
        uniform: [n, 2], in [0, 1); u below 1e-7 counts as 1e-7, as in TensorFlow's kernel.

    Returns:
        [2 n].
    """
    # Complex numbers take pairs apart and together faster than slices and `tf.stack`.
    pairs = tf.bitcast(uniform, {tf.float32: tf.complex64, tf.float64: tf.complex128}[uniform.dtype])
    radius = tf.sqrt(-2 * tf.math.log(tf.maximum(tf.math.real(pairs), 1e-7)))
    angle = 2 * math.pi * tf.math.imag(pairs)
    normals = tf.complex(radius * tf.sin(angle), radius * tf.cos(angle))
    return tf.reshape(tf.bitcast(normals, uniform.dtype), [-1])


def box_muller_in_place(uniform: tf.Tensor) -> tf.Tensor:
    """As `box_muller`, for pairs of neighbors in rows [n, even], without taking the pairs apart.

    Every number is computed from itself and both neighbors, one of which is multiplied by 0.
    """
    first = tf.constant([1.0, 0.0] * (uniform.shape[1] // 2), uniform.dtype)
    after, before = tf.pad(uniform[:, 1:], [[0, 0], [0, 1]]), tf.pad(uniform[:, :-1], [[0, 0], [1, 0]])
    radius = tf.sqrt(-2 * tf.math.log(tf.maximum(first * uniform + (1 - first) * before, 1e-7)))
    angle = 2 * math.pi * (first * after + (1 - first) * uniform)
    return radius * (first * tf.sin(angle) + (1 - first) * tf.cos(angle))


def flat_sum(shapes, dtype, key, coefficients, drawn: mechanism.Draw) -> list[tf.Tensor]:
    """c_0 Z_k + c_1 Z_(k-1) + ..., of the draws Z of `flat_normal`; Z_j = 0 before `drawn.first`.

    The earlier draws are drawn again, one at a time, so that nothing is stored from step to step.

    Args:
        shapes: as in `flat_normal`, like dtype and key.
        dtype: float32 or float64.
        key: [2] int64.
        coefficients: c_0, c_1, ...; (1.0,) gives the draw of the step, bit for bit.
        drawn: the step k, its generation, and the first step.

    Returns:
        One tensor per shape.
    """
    now = flat_normal(shapes, dtype, key, drawn.step, drawn.generation)
    if tuple(coefficients) == (1.0,):
        return now
    table = tf.constant(coefficients, dtype)
    # A branch with `tf.where` would draw what it throws away.
    count = tf.minimum(len(coefficients), tf.cast(drawn.step - drawn.first, tf.int32) + 1)

    def add(lag, *sums):
        earlier = flat_normal(
            shapes, dtype, key, tf.cast(drawn.step, tf.int64) - tf.cast(lag, tf.int64), drawn.generation
        )
        return lag + 1, *[total + table[lag] * normal for total, normal in zip(sums, earlier, strict=True)]

    start = (tf.constant(1), *[table[0] * normal for normal in now])
    return list(tf.while_loop(lambda lag, *sums: lag < count, add, start, parallel_iterations=1)[1:])


def draw(geometry: str, values, key, drawn: mechanism.Draw, coefficients=(1.0,)) -> list[tf.Tensor]:
    """Noise of unit scale, one tensor per value.

    Args:
        geometry: "isotropic": Z. "multiplicative": Z * w, with a separate draw for every weight. "mirrored" (eq. (18)):
            +Z * w for the plus and -Z * w for the minus weights of variables [..., 2, d], with one Z [..., d] for both.
        values: the gradients' shapes and dtypes for "isotropic"; the weights w for the others.
        key: [2] int64.
        drawn: the step, its generation, and the first step.
        coefficients: Z is the sum of `flat_sum`. Defaults to (1.0,), the draw of the step alone.

    Returns:
        One tensor per value, in the value's dtype.
    """
    shapes = [tuple(value.shape) for value in values]
    if geometry == "mirrored":
        shapes = [shape[:-2] + shape[-1:] for shape in shapes]
    dtype = tf.float64 if any(value.dtype == tf.float64 for value in values) else tf.float32
    normals = flat_sum(shapes, dtype, key, coefficients, drawn)
    normals = [tf.cast(normal, value.dtype) for normal, value in zip(normals, values, strict=True)]
    if geometry == "isotropic":
        return normals
    if geometry == "mirrored":
        normals = [tf.stack([normal, -normal], axis=-2) for normal in normals]
    return [normal * value for normal, value in zip(normals, values, strict=True)]


class GaussianSumQuery(mechanism.Mechanism, tf_privacy.gaussian_query.GaussianSumQuery):
    """DP-SGD's mechanism: a sum of records clipped to `l2_norm_clip`, plus N(0, stddev^2) on every coordinate.

    It is tensorflow-privacy's query as well, whose global state is a `mechanism.Draw`.

    Args:
        l2_norm_clip: C, the sensitivity of the sum.
        stddev: standard deviation of the noise on the sum (noise_multiplier * C); 0 for none.
        key: [2] int64, the noise key.
    """

    def __init__(self, l2_norm_clip: float, stddev: float, key):
        super().__init__(l2_norm_clip, stddev)
        self._key = key

    def clip_bound(self, state: mechanism.State) -> float:
        """C, in every step."""
        return self._l2_norm_clip

    def stddev(self, state: mechanism.State) -> float:
        """The same in every step."""
        return self._stddev

    def add_noise(self, sums, statistic, state: mechanism.State, draw: mechanism.Draw):
        """The sums with this replica's share of the step's noise."""
        if self._stddev:
            sums = add_noise("isotropic", sums, sums, self._stddev, self._key, draw)
        return sums, statistic

    @property
    def event(self) -> dp_accounting.DpEvent:
        """What one step costs, for the accountant; non-private without noise."""
        if not self._stddev or math.isinf(self._l2_norm_clip):
            return dp_accounting.NonPrivateDpEvent()
        return dp_accounting.GaussianDpEvent(self._stddev / self._l2_norm_clip)

    def facts(self) -> dict[str, float]:
        """The numbers of a privacy statement."""
        multiplier = self._stddev / self._l2_norm_clip if math.isfinite(self._l2_norm_clip) else 0.0
        return {"l2_norm_clip": self._l2_norm_clip, "noise_multiplier": multiplier}

    def initial_global_state(self) -> mechanism.Draw:
        """The state of step 0."""
        return mechanism.Draw()

    def derive_sample_params(self, global_state: mechanism.Draw) -> float:
        """The clipping norm."""
        return self._l2_norm_clip

    def get_noised_result(self, sample_state, global_state: mechanism.Draw):
        """The sum with this step's noise, the next step's state, and the event to account."""
        noised, _ = self.add_noise(sample_state, None, {}, global_state)
        return noised, global_state._replace(step=global_state.step + 1), self.event


class IndependentNoise(mechanism.Recipe):
    """The recipe of DP-SGD's usual noise: independent in every step, of noise_multiplier times the clip norm."""

    def make(self, l2_norm_clip: float, noise_multiplier: float, batch_size: int, key) -> GaussianSumQuery:
        """The mechanism of a run; infinity times 0 is no noise."""
        return GaussianSumQuery(l2_norm_clip, noise_multiplier * l2_norm_clip if noise_multiplier else 0.0, key)


class UnclippedGaussianSumQuery(tf_privacy.dp_query.SumAggregationDPQuery):
    """Noisy-SGD's mechanism: noise of a stated size on an unbounded sum, and so no privacy.

    Args:
        stddev: standard deviation of the noise on the sum; a number, or tensors that broadcast against the records.
        key: [2] int64, the noise key.
        geometry: one of `GEOMETRIES`. Defaults to "isotropic".
        weights: the weights that the noise is multiplied by, for the geometries other than "isotropic".
        coefficients: of the draws of this step and of those before it. Defaults to (1.0,), independent noise.
    """

    def __init__(self, stddev, key, geometry: str = "isotropic", weights=None, coefficients=(1.0,)):
        self._stddev = stddev
        self._key = key
        self._geometry = geometry
        self._weights = weights
        self._coefficients = coefficients

    def initial_global_state(self) -> mechanism.Draw:
        """The state of step 0."""
        return mechanism.Draw()

    def get_noised_result(self, sample_state, global_state: mechanism.Draw):
        """The sum with this step's noise, the next step's state, and a non-private event."""
        like = sample_state if self._weights is None else self._weights
        noised = add_noise(
            self._geometry, sample_state, like, self._stddev, self._key, global_state, self._coefficients
        )
        return noised, global_state._replace(step=global_state.step + 1), dp_accounting.NonPrivateDpEvent()


def add_noise(geometry: str, sums, like, stddev, key, drawn: mechanism.Draw, coefficients=(1.0,)):
    """The sums with `drawn.share` of `stddev` times the noise of `draw`.

    Args:
        geometry: as in `draw`.
        sums: any nest of tensors or arrays.
        like: a tensor per sum: the `values` of `draw`.
        stddev: a number, or a tensor that broadcasts against the sums.
        key: [2] int64.
        drawn: what the draw depends on.
        coefficients: as in `draw`.

    Returns:
        The same nest.
    """
    flat = [tf.convert_to_tensor(value) for value in tf.nest.flatten(sums)]
    # Drawn earlier, the noise would take memory beside all inputs of the sums.
    large = sum(value.shape.num_elements() * value.dtype.size for value in flat) > DRAWN_EARLY_BYTES
    with tf.control_dependencies([tf.group(*flat)] if large else []):
        noise = draw(geometry, tf.nest.flatten(like), key, drawn, coefficients)
    scales = {dtype: tf.cast(stddev, dtype) * drawn.share for dtype in {value.dtype for value in flat}}
    noised = [value + scales[value.dtype] * z for value, z in zip(flat, noise, strict=True)]
    return tf.nest.pack_sequence_as(sums, noised)
