import numpy as np
from absl.testing import absltest
from sklearn import datasets

from noisy_sgd.studies.laboratory import images, settings


class ImagesTest(absltest.TestCase):
    def test_a_seed_draws_its_own_training_set_and_wrong_labels(self):
        clean = images.load("digits", 1, num_train_examples=500)
        again = images.load("digits", 1, num_train_examples=500, wrong_labels=0.4)
        other = images.load("digits", 2, num_train_examples=500, wrong_labels=0.4)
        np.testing.assert_array_equal(clean.train.images, again.train.images)
        self.assertFalse(np.array_equal(again.train.images, other.train.images))
        # A replaced label is right by chance in one case of ten: 0.36 of 500, standard deviation 7.
        self.assertBetween(np.sum(clean.train.labels != again.train.labels), 160, 200)
        np.testing.assert_array_equal(clean.judged.labels, other.judged.labels)

    def test_a_setting_asks_for_its_images(self):
        found = images.of(settings.Images(dataset="digits", num_train_examples=300), 1)
        wrong = images.of(settings.Network(dataset="digits", num_train_examples=300, wrong_labels=0.4), 1)
        for data, fraction in ((found, 0.0), (wrong, 0.4)):
            expected = images.load("digits", 1, num_train_examples=300, wrong_labels=fraction)
            np.testing.assert_array_equal(data.train.images, expected.train.images)
            np.testing.assert_array_equal(data.train.labels, expected.train.labels)
        self.assertFalse(np.array_equal(found.train.labels, wrong.train.labels))

    def test_others_are_of_the_first_classes_and_not_in_the_training_set(self):
        train = images.load("digits", 3, num_train_examples=900).train
        found = images.others("digits", 3, num_train_examples=900, num_examples=1_000, num_classes=5)
        self.assertEqual(set(found.labels), {0, 1, 2, 3, 4})
        below_5 = np.sum(datasets.load_digits().target[:1437] < 5)
        self.assertEqual(len(found.labels), below_5 - np.sum(train.labels < 5))
        self.assertEmpty({image.tobytes() for image in found.images} & {image.tobytes() for image in train.images})
        few = images.others("digits", 3, num_train_examples=900, num_examples=7, num_classes=5)
        np.testing.assert_array_equal(few.images, found.images[:7])

    def test_the_halves_of_the_test_set_are_disjoint(self):
        data = images.load("digits", 0, num_train_examples=100)
        self.assertEqual((len(data.chosen.labels), len(data.judged.labels)), (180, 180))
        joined = {image.tobytes() for image in data.chosen.images} & {image.tobytes() for image in data.judged.images}
        self.assertEmpty(joined)

    def test_half_size_takes_means(self):
        pixels = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
        halved = images._half_size(pixels)
        self.assertEqual(halved.shape, (2, 2, 2, 1))
        self.assertEqual(halved[0, 0, 1, 0], np.mean([2, 3, 6, 7]))

    def test_digits_stand_in_for_mnist_that_cannot_be_loaded(self):
        directory = self.create_tempdir()
        directory.create_file("mnist.npz", "no archive")
        self.assertEqual(images.resolved("mnist_or_digits", directory.full_path), "digits")
        self.assertEqual(images.resolved("digits"), "digits")


if __name__ == "__main__":
    absltest.main()
