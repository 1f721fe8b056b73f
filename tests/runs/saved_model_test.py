import pathlib
import tempfile
import zipfile

import keras
import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.data import bundled
from noisy_sgd.runs import saved_model, trained_model
from noisy_sgd.training import private_model

SHAPE = (8, 8, 1)


def _logits(x):
    return keras.layers.Dense(10)(keras.layers.Flatten()(x))


def _functional(layers, dtype=None):
    inputs = keras.Input(SHAPE, dtype=dtype)
    return keras.Model(inputs, _logits(layers(inputs)))


def _sequential(*layers):
    return keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Flatten(), keras.layers.Dense(10)])


def _residual(x):
    return keras.layers.Add()([x, keras.layers.Conv2D(1, 3, padding="same")(x)])


def _in_a_dictionary():
    inputs = keras.Input(SHAPE, name="x")
    return keras.Model({"x": inputs}, _logits(inputs))


def _behind_a_reshape(x):
    return keras.layers.Rescaling(1 / 16)(keras.layers.Reshape(SHAPE)(x))


def _behind_a_layer(x):
    return keras.layers.Rescaling(1 / 16)(keras.layers.Conv2D(2, 3)(x))


def _nested(*layers):
    return keras.Sequential([keras.Input(SHAPE), *layers])


# Each a model, and whether it scales what it gets.
MODELS = {
    "plain": (lambda: _functional(lambda x: x), False),
    "rescaling": (lambda: _functional(keras.layers.Rescaling(1 / 16)), True),
    "normalization": (lambda: _functional(keras.layers.Normalization(mean=[8.0], variance=[4.0])), True),
    "a division": (lambda: _functional(lambda x: x / 16.0), True),
    "a difference": (lambda: _functional(lambda x: (x - 8.0) * 0.1), True),
    "behind a reshape": (lambda: _functional(_behind_a_reshape), True),
    "behind a layer": (lambda: _functional(_behind_a_layer), False),
    "residual": (lambda: _functional(_residual), False),
    "sequential": (_sequential, False),
    "sequential rescaling": (lambda: _sequential(keras.layers.Rescaling(1 / 16)), True),
    "nested": (lambda: _functional(_nested(keras.layers.Conv2D(2, 3))), False),
    "nested rescaling": (lambda: _functional(_nested(keras.layers.Rescaling(1 / 16))), True),
    "whole numbers": (lambda: _functional(keras.layers.Rescaling(1 / 16), dtype="uint8"), True),
    "taken names": (lambda: _functional(keras.layers.Dense(3, name="pixels")), False),
    "a dictionary": (_in_a_dictionary, False),
}
RANGES = {"0,1": lambda x: x / 16, "-1,1": lambda x: x / 8 - 1, "0,255": lambda x: x * (255 / 16), "raw": lambda x: x}


class SavedModelTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.images = bundled.load("digits")

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        self.path = self.root / "mine.keras"

    def _load(self, pixel_range="auto", path=None, model_class=private_model.PrivateModel):
        return saved_model.load(str(path or self.path), self.images, pixel_range=pixel_range, model_class=model_class)

    @parameterized.parameters(*MODELS)
    def test_gets_what_it_expects_and_trains_on_in_the_same_way(self, name):
        build, scales = MODELS[name]
        model = build()
        model.save(self.path)
        pixels = self.images.test_images[:4]
        default = "raw" if scales else "0,1"
        for typed in ("auto", "raw", *(() if name == "whole numbers" else ("-1,1", "0,255"))):
            network, fed = self._load(typed)
            self.assertIsInstance(network, private_model.PrivateModel)
            chosen = default if typed == "auto" else typed
            scaled = RANGES[chosen](pixels.astype("float32"))
            expected = model({"x": scaled} if name == "a dictionary" else scaled)
            np.testing.assert_allclose(network(pixels), expected, rtol=1e-4, atol=1e-5)
            shown = "unscaled pixels, " if chosen == "raw" else f"pixels from {chosen.replace(',', ' to ')}, "
            self.assertStartsWith(fed, f"mine.keras gets {shown}")
            np.testing.assert_array_equal(network.get_weights()[-1], model.get_weights()[-1])
            trained_model.save(self.root / "again.keras", network)
            again, fed = self._load(path=self.root / "again.keras")
            self.assertStartsWith(fed, "again.keras gets unscaled pixels, from 0 to 16;")
            np.testing.assert_array_equal(again(pixels), network(pixels))

    def test_a_range_is_for_numbers_that_are_not_whole(self):
        MODELS["whole numbers"][0]().save(self.path)
        with self.assertRaisesRegex(ValueError, "^`--pixel_range` cannot be given to a model whose inputs are uint8"):
            self._load("0,1")

    def test_its_layers_stay_its_own(self):
        _functional(keras.layers.Conv2D(2, 3)).save(self.path)
        kinds = [type(layer).__name__ for layer in self._load()[0].layers]
        self.assertEqual(kinds, ["InputLayer", "Rescaling", "Conv2D", "Flatten", "Dense"])

    def test_what_is_no_model_is_refused(self):
        message = "^`--model` must be a file that holds a Keras model "
        for contents in (b"", b"garbage"):
            self.path.write_bytes(contents)
            self._assert_refused(message)
        _sequential().save(self.path)
        self.path.write_bytes(self.path.read_bytes()[:-100])
        self._assert_refused(message)
        self.path.unlink()
        self._assert_refused("^`--model` must name a file that exists ")
        self.path.mkdir()
        self._assert_refused(message)
        self.path.rmdir()
        with zipfile.ZipFile(self.path, "w") as file:
            file.writestr("a", "b")
        self._assert_refused("^`--model` must be a Keras model that can be loaded,")

    def test_a_layer_that_is_not_known_is_named(self):
        class Doubled(keras.layers.Layer):
            def call(self, x):
                return 2 * x

        _functional(Doubled()).save(self.path)
        self._assert_refused(
            "^`--model` must be a Keras model that can be loaded,.*: Could not locate class 'Doubled'$"
        )

    def test_what_does_not_fit_is_refused(self):
        inputs, other = keras.Input(SHAPE), keras.Input(SHAPE)
        for model, message in (
            (
                keras.Model([inputs, other], _logits(keras.layers.Add()([inputs, other]))),
                "it has 2 inputs and 1 outputs",
            ),
            (keras.Model(inputs, [_logits(inputs), _logits(inputs)]), "it has 1 inputs and 2 outputs"),
            (keras.Model(inputs, keras.layers.Dense(10)(inputs)), r"it maps \(8, 8, 1\) to \(8, 8, 10\)"),
            (keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs))), r"to \(3,\)"),
        ):
            model.save(self.path)
            self._assert_refused(f"^`--model` must .*{message}$")

    def _assert_refused(self, message):
        with self.assertRaisesRegex(ValueError, message) as caught:
            self._load()
        self.assertNotIn("\n", str(caught.exception))


if __name__ == "__main__":
    absltest.main()
