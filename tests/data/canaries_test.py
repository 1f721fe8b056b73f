"""Canaries: what they are, and that a missing one is in no way in the data."""

import dataclasses

import numpy as np
from absl.testing import absltest

from noisy_sgd import config
from noisy_sgd.data import bundled, canaries
from noisy_sgd.runs import builders, recorded_run

DIGITS = bundled.load("digits", train_size=10)
COINS = np.array([True, False, True, True, False, False])


class Trainer:
    """Makes recorded runs with public seeds, of one compiled step, on one image set after the other."""

    def __init__(self, images):
        self.settings = config.Config(
            model=config.Model(model="mlp", hidden=(4,)),
            training=config.Training(batch_size=8, num_steps=4, learning_rate=0.5, sampling="poisson"),
        )
        self.objects = builders.build(self.settings, images=images)

    def weights(self, images, folder):
        settings = dataclasses.replace(self.settings, run=config.Run(run_dir=f"{folder}/run"))
        builders.restart(self.objects, settings)
        with recorded_run.started(dataclasses.replace(self.objects, images=images), settings) as run:
            recorded_run.train(run)
        return self.objects.model.get_weights()


class CanariesTest(absltest.TestCase):
    def test_they_are_random_black_and_white_images_at_the_end(self):
        images = canaries.add(DIGITS, 2000, seed=3)
        np.testing.assert_array_equal(images.train_images[:10], DIGITS.train_images)
        np.testing.assert_array_equal(images.train_labels[:10], DIGITS.train_labels)
        pixels, labels = images.train_images[10:], images.train_labels[10:]
        self.assertEqual(set(np.unique(pixels)), {0, 16})
        # 128,000 pixels: a standard deviation of 0.0014; 200 labels of each class, plus or minus 13.
        self.assertAlmostEqual(np.mean(pixels == 16), 0.5, delta=0.007)
        self.assertLess(np.abs(np.bincount(labels, minlength=10) - 200).max(), 70)
        np.testing.assert_array_equal(canaries.add(DIGITS, 2000, seed=3).train_images, images.train_images)
        self.assertNotEqual(canaries.add(DIGITS, 2000, seed=4).fingerprint(), images.fingerprint())

    def test_what_is_missing_is_not_in_the_arrays(self):
        images = canaries.add(DIGITS, 6)
        data = canaries.included(images, COINS)
        np.testing.assert_array_equal(data.present, [True] * 10 + COINS.tolist())
        np.testing.assert_array_equal(data.train_images[data.present], images.train_images[data.present])
        self.assertEqual(data.train_images[~data.present].max(), 0)
        self.assertNotEqual(data.fingerprint(), dataclasses.replace(data, present=None).fingerprint())

    def test_a_missing_canary_changes_no_bit_and_a_present_one_does(self):
        images = canaries.add(DIGITS, 6)
        data = canaries.included(images, COINS)
        # The same coins with other pixels and labels behind the missing ones.
        pixels, labels = data.train_images.copy(), data.train_labels.copy()
        pixels[~data.present], labels[~data.present] = 9, 5
        replaced = dataclasses.replace(data, train_images=pixels, train_labels=labels)
        trainer, other_coins = Trainer(images), canaries.included(images, ~COINS)
        found = [trainer.weights(each, self.create_tempdir().full_path) for each in (data, replaced, other_coins)]
        for one, same in zip(found[0], found[1], strict=True):
            np.testing.assert_array_equal(one, same)
        self.assertGreater(max(np.abs(one - other).max() for one, other in zip(found[0], found[2], strict=True)), 1e-3)


if __name__ == "__main__":
    absltest.main()
