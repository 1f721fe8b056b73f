"""Tests of the flags of the network."""

from absl.testing import absltest, parameterized

from noisy_sgd import config


class ModelTest(parameterized.TestCase):
    @parameterized.parameters(
        ({"hidden": (8,)}, "--hidden.*--model=mlp"),
        ({"model": "mlp", "hidden": (8, 0)}, "--hidden.*positive.*hidden=8,0"),
        ({"model": "resnet"}, "--model.*nf_resnet_tiny.*model=resnet"),
        ({"precision": "float16"}, "--precision.*float32, bfloat16.*precision=float16"),
        ({"convention": "own"}, "--convention.*deepmind, timm, tan.*convention=own"),
        ({"model": "mlp", "convention": "tan"}, "--convention.*means nothing to mlp"),
        ({"model": "my.keras", "initial_weights": "w.npz"}, "--initial_weights.*means nothing to a saved model"),
        ({"model": "my.keras", "precision": "bfloat16"}, "--precision.*saved model.*its own"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(config.ConfigError, message) as caught:
            config.Model(**arguments)
        self.assertNotIn("\n", str(caught.exception))

    def test_a_saved_model_is_named_by_its_path(self):
        self.assertEqual(config.Model(model="somewhere/mine.keras").model, "somewhere/mine.keras")


class PixelRangeTest(parameterized.TestCase):
    @parameterized.parameters(("raw", None), ("auto", None), ("0,1", (0.0, 1.0)), ("-1,1.5", (-1.0, 1.5)))
    def test_is_read(self, typed, expected):
        self.assertEqual(config.pixel_bounds(typed), expected)
        made = config.Config(model=config.Model(model="mine.keras", pixel_range=typed))
        self.assertEqual(made.resolved()["model"]["pixel_range"], typed)

    @parameterized.parameters("", "0", "1,0", "1,1", "0,1,2", "0,inf", "nan,1", "a,b", "0,")
    def test_is_refused(self, typed):
        with self.assertRaisesRegex(ValueError, "^`--pixel_range` must be raw, auto, or two rising numbers"):
            config.Model(model="mine.keras", pixel_range=typed)

    def test_is_for_saved_models(self):
        with self.assertRaisesRegex(ValueError, "^`--pixel_range` means nothing to mlp"):
            config.Model(model="mlp", pixel_range="0,1")
        self.assertNotIn("pixel_range", config.Config(model=config.Model(model="mlp")).resolved()["model"])

    def test_an_mlp_has_hidden_units(self):
        with self.assertRaisesRegex(ValueError, "^`--hidden` needs .* one or more positive whole numbers"):
            config.Model(model="mlp", hidden=())


if __name__ == "__main__":
    absltest.main()
