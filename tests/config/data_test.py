"""Tests of the flags of the data."""

from absl.testing import absltest, parameterized

from noisy_sgd import config


class DataTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"dataset": "mnits"}, "--dataset.*digits, mnist.*dataset=mnits"),
        ({"num_train_examples": 0}, "--num_train_examples"),
        ({"label_noise": 1.5}, "--label_noise.*between 0 and 1"),
        ({"augmentation": "mixup"}, "--augmentation.*none, crop, flip_and_crop.*augmentation=mixup"),
        ({"augmentation": "tan"}, "--augmentation.*cannot be tan for digits.*choose crop"),
        ({"dataset": "mnist", "augmentation": "deepmind"}, "--augmentation.*cannot be deepmind for mnist"),
        ({"held_out": 0}, "--held_out.*at least 1.*held_out=0"),
        ({"corrupt_images": "ignore"}, "--corrupt_images.*stop, skip"),
        ({"corrupt_images": "skip"}, "--corrupt_images.*means nothing to digits"),
        ({"image_size": 64}, "--image_size.*means nothing to digits.*imagenet2012"),
        ({"dataset": "imagenet2012", "image_size": 0}, "--image_size.*at least 1"),
        ({"dataset": "imagenet2012", "label_noise": 0.1}, "--label_noise.*imagenet2012.*label_noise=0.1"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(config.ConfigError, message) as caught:
            config.Data(**arguments)
        self.assertNotIn("\n", str(caught.exception))

    @parameterized.parameters(("digits", None, None), ("imagenet2012", None, 224), ("imagenet2012", 64, 64))
    def test_only_imagenet_has_an_image_size(self, dataset, typed, resolved):
        self.assertEqual(config.Data(dataset=dataset, image_size=typed).resolved_image_size, resolved)

    def test_positional_arguments_are_refused(self):
        with self.assertRaises(TypeError):
            config.Data("digits")


if __name__ == "__main__":
    absltest.main()
