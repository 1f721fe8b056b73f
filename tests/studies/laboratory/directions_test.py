import numpy as np
import tensorflow as tf
from absl.testing import absltest

from noisy_sgd.studies.laboratory import arms, directions, images, networks
from tests import oracles

DATA = images.load("digits", 0, num_train_examples=25)
X, Y = DATA.train.images, DATA.train.labels


def cosine(one, other):
    return np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)


class DirectionsTest(absltest.TestCase):
    def test_directions_are_those_of_a_loop_and_of_drawn_noise(self):
        model = networks.builder("mlp", DATA, width=6)(0)
        each = oracles.gradients(model, oracles.cross_entropy, X, tf.constant(Y))
        norms = np.array([oracles.length(gradient) for gradient in each])
        bound = float(np.quantile(norms, 0.3))
        plain, clipped = (
            np.mean([np.concatenate([part.ravel() for part in change(gradient)]) for gradient in each], axis=0)
            for change in (lambda gradient: gradient, oracles.flat(bound))
        )
        std = 0.5 * np.linalg.norm(plain) / np.sqrt(plain.size)
        found = directions.Directions(model, bound, std)(X, Y)
        self.assertAlmostEqual(found["gradient_norm"], np.linalg.norm(plain), delta=1e-4)
        self.assertAlmostEqual(found["median_norm"], np.median(norms), delta=1e-3)
        self.assertEqual(found["fraction_clipped"], np.mean(norms > bound))
        self.assertBetween(found["fraction_clipped"], 0.6, 0.8)
        self.assertAlmostEqual(found["cosines"][arms.CLIP], cosine(plain, clipped), places=5)
        # 1,000 draws of noise in 460 dimensions: the mean of the cosine is within 0.02 of the stated value.
        draws = std * np.random.default_rng(0).normal(size=(1_000, plain.size))
        for arm, direction in ((arms.NOISE, plain), (arms.NOISE_CLIP, clipped)):
            expected = np.mean([cosine(plain, direction + draw) for draw in draws])
            self.assertAlmostEqual(found["cosines"][arm], expected, delta=0.02)
        self.assertLess(found["cosines"][arms.NOISE_CLIP], found["cosines"][arms.CLIP])


if __name__ == "__main__":
    absltest.main()
