"""A whole DP-SGD step compiled by XLA, as a TPU needs it: fixed shapes, and no way back to the host."""

import re

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest

from noisy_sgd.optimizers import sgd
from noisy_sgd.training import distribution, private_model, weight_average

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, [4, 8, 8, 1], dtype=np.uint8)
LABELS = RNG.integers(0, 3, 4, dtype=np.int32)
MASK = np.asarray([True, True, True, False])


def setUpModule():
    distribution.use_logical_devices(2)


def made(noise_multiplier=3.0):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 1))
    features = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Rescaling(2 / 255, offset=-1.0)(inputs))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(features))
    model = private_model.PrivateModel(inputs, outputs)
    optimizer = sgd.DPSGD(0.2, 0.5, noise_multiplier, 8, seed=3, momentum=0.9)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    average = weight_average.WeightAverage(model.trainable_variables, 0.99)

    def step(images, labels, mask):
        for _ in range(2):
            model.accumulate(images, labels, mask=mask)
        model.finish()
        average.update(tf.distribute.get_strategy(), optimizer.iterations - 1)

    return step, [*model.trainable_variables, *average.variables]


def compiled(step, jit_compile):
    return tf.function(step, jit_compile=jit_compile, autograph=False)


class CompiledStepTest(absltest.TestCase):
    def test_the_program_has_fixed_shapes_and_calls_nothing_outside(self):
        step = compiled(made()[0], jit_compile=True)
        program = step.experimental_get_compiler_ir(IMAGES, LABELS, MASK)(stage="stablehlo")
        operations = set(re.findall(r"(?:stablehlo|mhlo|chlo)\.([a-z_]+)", program))
        self.assertContainsSubset({"convolution", "rng_bit_generator", "add"}, operations)
        self.assertNoCommonElements(operations, {"custom_call", "infeed", "outfeed", "send", "recv"})
        self.assertNoCommonElements(operations, {"dynamic_reshape", "dynamic_broadcast_in_dim", "real_dynamic_slice"})
        self.assertNotIn("tensor<?", program)

    def test_a_call_to_the_host_is_seen(self):
        step, _ = made()

        @tf.function(jit_compile=True, autograph=False)
        def watched(images, labels, mask):
            step(images, labels, mask)
            return tf.numpy_function(np.sum, [tf.cast(labels, tf.float32)], tf.float32)

        with self.assertRaises((tf.errors.OpError, ValueError)):
            watched.experimental_get_compiler_ir(IMAGES, LABELS, MASK)(stage="stablehlo")

    def test_it_trains_as_the_uncompiled_step_does(self):
        # Without noise: XLA's stream of normals is its own.
        results = []
        for jit_compile in (False, True):
            step, variables = made(noise_multiplier=0.0)
            run = compiled(step, jit_compile)
            for _ in range(2):
                run(IMAGES, LABELS, MASK)
            results.append([np.asarray(variable) for variable in variables])
        for plain, fused in zip(*results, strict=True):
            np.testing.assert_allclose(plain, fused, rtol=0, atol=1e-6)


if __name__ == "__main__":
    absltest.main()
