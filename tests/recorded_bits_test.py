"""Seeds give the same bits on every Python that the package runs on: what was recorded once is drawn everywhere."""

import hashlib

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import keys, sampling
from noisy_sgd.mechanisms import gaussian, mechanism

KEY = keys.derive(7, "noise")


def digest(sampler, num_steps):
    indices = np.concatenate([sampler.indices(step) for step in range(num_steps)])
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()[:16]


class RecordedBitsTest(parameterized.TestCase):
    def test_keys(self):
        self.assertEqual(KEY, (-8070664028741799235, -2287441380166789113))
        self.assertEqual(keys.derive(b"secret", "inclusion"), (2520143587382792608, 7501711450514172802))
        self.assertEqual(keys.generator(7, "order").integers(2**32, size=2).tolist(), [4058335883, 2684764585])
        self.assertEqual(keys.generator(-7, "subset").integers(2**32, size=2).tolist(), [1005534490, 1563227182])

    def test_noise(self):
        first, second = gaussian.flat_normal([(3,), (2, 1)], tf.float32, tf.constant(KEY, tf.int64), 5, 1)
        recorded = [
            "-0x1.92e4680000000p+0",
            "-0x1.b591c00000000p+0",
            "-0x1.6f691e0000000p-1",
            "-0x1.7342860000000p-1",
            "-0x1.759e040000000p-2",
        ]
        # Another kernel may round another way.
        np.testing.assert_allclose(
            [*first.numpy(), *second.numpy().ravel()], [float.fromhex(value) for value in recorded], rtol=2e-6
        )

    def test_noise_in_double_precision(self):
        (drawn,) = gaussian.flat_normal([(3,)], tf.float64, tf.constant(KEY, tf.int64), 5, 1)
        recorded = ("-0x1.1ce76edee0ddfp+0", "0x1.f81b113d167fep-6", "-0x1.17987260236b1p-2")
        # The logarithm of a double may differ in its last bit between processors.
        np.testing.assert_allclose(drawn, [float.fromhex(value) for value in recorded], rtol=5e-16)

    def test_a_step_of_dp_sgd(self):
        query = gaussian.GaussianSumQuery(1.0, 2.5, tf.constant(KEY, tf.int64))
        noised, _, _ = query.get_noised_result([tf.zeros([3])], mechanism.Draw(3))
        recorded = ("-0x1.fefcfa0000000p+1", "-0x1.197ce00000000p+1", "-0x1.3052640000000p+2")
        np.testing.assert_allclose(noised[0], [float.fromhex(value) for value in recorded], rtol=2e-6)

    def test_data_order(self):
        sampler = sampling.Shuffled(10, 4, 7)
        found = [sampler.indices(step).tolist() for step in range(4)]
        self.assertEqual(found, [[6, 2, 8, 4], [5, 3, 7, 9], [1, 0], [5, 6, 1, 3]])
        self.assertEqual(digest(sampling.Shuffled(60_000, 256, b"secret" * 3), 300), "22bd5a4c7fd35145")

    @parameterized.parameters((None, [5, 6, 13, 21, 24, 35, 36]), (6, [5, 6, 21, 24, 35, 36]))
    def test_poisson_inclusion(self, capacity, third):
        uncapped = sampling.Poisson(40, 8, 7)
        sampler = uncapped if capacity is None else sampling.CappedPoisson(40, 8, 7, capacity=capacity)
        found = [sampler.indices(step).tolist() for step in range(3)]
        self.assertEqual(found, [[5, 13, 15, 26, 27, 30], [9, 19, 31, 33, 39], third])
        self.assertEqual(digest(sampling.Poisson(60_000, 256, b"secret" * 3), 20), "266acbc25e9784a5")


if __name__ == "__main__":
    absltest.main()
