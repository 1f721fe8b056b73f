import keras
from absl.testing import absltest, parameterized

from tests.gradients.layer_rules import rules_test

L = keras.layers
IMAGE, ROUTES = (5, 6, 3), ("per_example", "formed_twice", "gram")
CASES = {
    "transpose": (IMAGE, lambda d: [L.Conv2DTranspose(4, 3, activation="tanh", dtype=d)]),
    "transpose_same": (IMAGE, lambda d: [L.Conv2DTranspose(4, 3, strides=2, padding="same", dtype=d)]),
    "transpose_stride": (IMAGE, lambda d: [L.Conv2DTranspose(4, (2, 3), strides=(3, 2), use_bias=False, dtype=d)]),
    "transpose_output": (IMAGE, lambda d: [L.Conv2DTranspose(2, 3, strides=2, output_padding=1, dtype=d)]),
    "transpose_folded": (IMAGE, lambda d: [L.Conv2DTranspose(2, 4, strides=2, padding="same", dtype=d)]),
    "transpose_1d": ((6, 3), lambda d: [L.Conv1DTranspose(4, 3, strides=2, dtype=d)]),
    "transpose_3d": ((3, 2, 3, 2), lambda d: [L.Conv3DTranspose(2, 2, strides=(1, 2, 1), padding="same", dtype=d)]),
    "separable": (IMAGE, lambda d: [L.SeparableConv2D(4, 3, depth_multiplier=2, activation="tanh", dtype=d)]),
    "separable_same": (IMAGE, lambda d: [L.SeparableConv2D(4, 3, strides=2, padding="same", dtype=d)]),
    "separable_dilation": (IMAGE, lambda d: [L.SeparableConv2D(4, 2, dilation_rate=2, use_bias=False, dtype=d)]),
    "separable_1d": ((7, 3), lambda d: [L.SeparableConv1D(4, 3, strides=2, padding="same", dtype=d)]),
}


class ConvolutionPartsTest(rules_test.Checks):
    @parameterized.product(case=list(CASES), views=[1, 2])
    def test_equals_float64_loop_by_every_route(self, case, views):
        input_shape, make_layers = CASES[case]
        self.check(make_layers, input_shape, routes=ROUTES, views=views)

    @parameterized.parameters("transpose_same", "transpose_1d", "separable", "separable_1d")
    def test_equals_float64_loop_as_on_an_accelerator(self, case):
        input_shape, make_layers = CASES[case]
        self.check(make_layers, input_shape, routes=("per_example", "gram"), device="accelerator")

    @parameterized.product(case=["transpose_same", "separable"], frozen=[0, 1, -1])
    def test_one_frozen_weight(self, case, frozen):
        input_shape, make_layers = CASES[case]

        def with_frozen(dtype):
            layers = make_layers(dtype)
            layers[0].build((1, *input_shape))
            layers[0]._trainable_variables[frozen].trainable = False
            return layers

        self.check(with_frozen, input_shape)


if __name__ == "__main__":
    absltest.main()
