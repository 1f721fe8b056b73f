import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients.layer_rules.shared import windows

GEOMETRIES = {
    "plain": ((3, 3), (1, 1), (1, 1), "valid"),
    "same": ((3, 2), (1, 1), (1, 1), "same"),
    "dilated": ((2, 3), (1, 1), (2, 2), "same"),
    "strided": ((3, 3), (2, 2), (1, 1), "same"),
    "folded": ((4, 2), (2, 2), (1, 1), "same"),
    "folded_valid": ((4, 2), (2, 1), (1, 1), "valid"),
    "coarse": ((2, 2), (2, 2), (1, 1), "valid"),
}


def case(name):
    kernel, strides, dilations, padding = GEOMETRIES[name]
    x = np.random.default_rng(0).normal(size=(2, 7, 8, 3))
    outputs = tf.nn.convolution(x, np.zeros((*kernel, 3, 1)), strides, padding.upper(), dilations=dilations).shape[1:-1]
    return x, windows.geometry(kernel, strides, dilations, padding, x.shape[1:-1], outputs)


def laid_out(x, where, device):
    """[n, T, kernel * channels]."""
    found = [tf.reshape(one, [len(x), -1, np.prod(one.shape[-2:])]) for one in windows.rows(x, where, device)]
    return np.concatenate(found, axis=-1)


class WindowsTest(parameterized.TestCase):
    @parameterized.product(name=list(GEOMETRIES), device=["cpu", "accelerator"])
    def test_windows_times_kernel_are_the_convolution(self, name, device):
        x, where = case(name)
        kernel = np.random.default_rng(1).normal(size=(*where.kernel, 3, 4))
        padding = "SAME" if any(sum(pair) for pair in where.padding) else "VALID"
        expected = tf.nn.convolution(x, kernel, where.strides, padding, dilations=where.dilations)
        found = laid_out(x, where, device) @ kernel.reshape(-1, 4)
        np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-12)

    @parameterized.product(name=list(GEOMETRIES), device=["cpu", "accelerator"])
    def test_offsets_one_by_one_are_the_windows(self, name, device):
        x, where = case(name)
        found = [tf.reshape(one, [len(x), -1, 3]) for one in windows.by_offset(x, where, device)]
        np.testing.assert_array_equal(np.concatenate(found, axis=-1), laid_out(x, where, device))

    @parameterized.parameters("folded", "folded_valid", "coarse")
    def test_folding_is_undone_by_unfold(self, name):
        x, where = case(name)
        self.assertTrue(windows.folds(where))
        slopes = np.random.default_rng(1).normal(size=(2, np.prod(where.outputs), 4))
        expected = np.einsum("ntk,ntq->kq", laid_out(x, where, "cpu"), slopes)
        folded, inner = windows.fold(tf.constant(x), where)
        gradient = np.einsum("ntk,ntq->kq", laid_out(folded, inner, "cpu"), slopes)
        found = windows.unfold(tf.constant(gradient), where)
        np.testing.assert_allclose(np.reshape(found, expected.shape), expected, atol=1e-12)

    @parameterized.parameters("plain", "same", "dilated")
    def test_gram_is_that_of_the_windows(self, name):
        x, where = case(name)
        laid = laid_out(x, where, "cpu")
        np.testing.assert_allclose(windows.gram(tf.constant(x), where, "cpu"), laid @ laid.swapaxes(1, 2), atol=1e-12)

    @parameterized.product(name=list(GEOMETRIES), device=["cpu", "accelerator"])
    def test_sums_are_those_of_the_windows(self, name, device):
        x, where = case(name)
        expected = laid_out(x, where, device).reshape(2, -1, np.prod(where.kernel), 3).sum(axis=2)
        np.testing.assert_allclose(np.reshape(windows.sums(x, where, device), expected.shape), expected, atol=1e-12)

    @parameterized.parameters("same", "dilated", "strided")
    def test_what_no_stride_divides_is_not_folded(self, name):
        self.assertFalse(windows.folds(case(name)[1]))


if __name__ == "__main__":
    absltest.main()
