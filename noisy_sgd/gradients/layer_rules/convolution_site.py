"""One call of a convolution after the backward pass, and the ways to compute its kernel's gradient.

`full` sums over the batch with the library's own kernel. Per-example gradients come from it too (`forming`), or from
matrix products of `windows` and output gradients. Their norms can also come from inner products between positions.

Covered by tests/gradients/layer_rules/rules_test.py and bound_test.py.
"""

import math

import tensorflow as tf
from keras import ops

from noisy_sgd.gradients.layer_rules.shared import contributions, rounding, windows

# The cost of one call of the library's kernel for the filter's gradient, beside its arithmetic.
SECONDS_PER_CALL = 1.2e-4
# With at least this many channels, an accelerator needs no copies of what a kernel reads side by side.
WIDE = 32


def is_depthwise(layer) -> bool:
    return hasattr(layer, "depth_multiplier")


def channels_last(layer, tensor):
    if layer.data_format == "channels_first":
        return tf.transpose(tensor, [0, *range(2, tensor.shape.rank), 1])
    return tensor


class Site:
    """One call of a convolution: its input x, the gradient z at its output, and the ways to the kernel's gradient.

    `channel_scale` multiplies z channel by channel, and so the kernel's gradient. Without `may_fold` the
    concatenated pieces of a gradient have the layout of the kernel.
    """

    def __init__(self, layer, call, microbatch, *, channel_scale=None, may_fold=True):
        self.layer, self.microbatch, self.may_fold = layer, microbatch, may_fold
        self.x = microbatch.cast(channels_last(layer, call.saved["inputs"]))
        self.z = microbatch.cast(channels_last(layer, call.tap_gradients[0]))
        if channel_scale is not None:
            self.z = self.z * channel_scale
        self.padding = layer.padding
        if layer.padding == "causal":
            self.x = tf.pad(self.x, [[0, 0], [layer.dilation_rate[0] * (layer.kernel_size[0] - 1), 0], [0, 0]])
            self.padding = "valid"
        self.strides, self.dilations = layer.strides, layer.dilation_rate
        self.geometry = windows.geometry(
            layer.kernel_size, self.strides, self.dilations, self.padding, self.x.shape[1:-1], self.z.shape[1:-1]
        )
        self.blocks = self.x.shape[-1] if is_depthwise(layer) else layer.groups
        self.positions = microbatch.views * math.prod(self.z.shape[1:-1])
        self.inputs_a_block = self.x.shape[-1] // self.blocks
        self.outputs_a_block = self.z.shape[-1] // self.blocks
        self.taps = math.prod(layer.kernel_size)

    @property
    def flops(self):
        one = 2 * self.positions * self.taps * self.blocks * self.inputs_a_block * self.outputs_a_block
        return self.microbatch.assumed_units * one

    @property
    def gradient_bytes(self):
        """The bytes of all per-example gradients."""
        return self.microbatch.assumed_units * math.prod(self.layer.kernel.shape) * self.microbatch.dtype.size

    @property
    def product_seconds(self):
        device, width = self.microbatch.device, self.microbatch.dtype.size
        window_bytes = self.microbatch.assumed_units * self.positions * self.taps * self.x.shape[-1] * width
        moved = window_bytes + self.gradient_bytes
        products = self.flops * contributions.SECONDS_PER_SMALL_FLOP[device]
        return products + moved * contributions.SECONDS_PER_BYTE[device]

    @property
    def call_seconds(self):
        """The time of the library's kernel, called once per example."""
        if self.microbatch.device != "cpu" or not self.library_kernel:
            return math.inf
        arithmetic = self.flops * contributions.SECONDS_PER_FLOP["cpu"]
        written = self.gradient_bytes * contributions.SECONDS_PER_BYTE["cpu"]
        return self.microbatch.assumed_units * SECONDS_PER_CALL + arithmetic + written

    @property
    def full_seconds(self):
        device, width = self.microbatch.device, self.microbatch.dtype.size
        inputs, outputs = (
            self.microbatch.assumed_units * self.microbatch.views * math.prod(tensor.shape[1:]) * width
            for tensor in (self.x, self.z)
        )
        arithmetic = self.flops * contributions.SECONDS_PER_FLOP[device]
        return arithmetic + (inputs + 3 * outputs) * contributions.SECONDS_PER_BYTE[device]

    @property
    def gram_seconds(self):
        device, units = self.microbatch.device, self.microbatch.assumed_units
        pairs, flops = self.positions**2, self.positions**2 * self.outputs_a_block
        if self.by_pixels:
            pixels = math.prod(self.x.shape[1:-1]) ** 2
            flops += pixels * self.inputs_a_block
            moved = sum(self.geometry.kernel) * 2 * max(pixels, pairs) + 3 * pairs
        else:
            flops += pairs * self.taps * self.inputs_a_block
            moved = (self.geometry.kernel[0] + 2) * pairs + 3 * self.positions * self.taps * self.inputs_a_block
        per_flop, per_byte = contributions.SECONDS_PER_SMALL_FLOP[device], contributions.SECONDS_PER_BYTE[device]
        return units * (2 * flops * per_flop + moved * self.microbatch.dtype.size * per_byte)

    @property
    def gram_bytes(self):
        """The bytes of the inner products, of which two or three copies exist at once."""
        side = math.prod(self.x.shape[1:-1]) if self.by_pixels else self.positions
        return 3 * self.microbatch.assumed_units * side**2 * self.microbatch.dtype.size

    @property
    def by_pixels(self):
        """Whether inner products of windows are best summed from those of pixels."""
        return max(self.geometry.strides) == 1 and self.microbatch.views == 1

    @property
    def library_kernel(self):
        """Whether TensorFlow's kernel for the filter's gradient of a 2-D convolution can be used."""
        plain = self.layer.rank == 2 and self.blocks == 1 and set(self.dilations) == {1}
        return plain and not is_depthwise(self.layer)

    def full(self, x, z):
        """The kernel's gradient summed over a batch of inputs x and output gradients z."""
        layer = self.layer
        shape = tuple(layer.kernel.shape)
        if self.library_kernel:
            return tf.raw_ops.Conv2DBackpropFilter(
                input=x, filter_sizes=shape, out_backprop=z, strides=[1, *self.strides, 1], padding=self.padding.upper()
            )
        kernel = tf.zeros(shape, self.microbatch.dtype)
        options = {"padding": self.padding, "dilation_rate": self.dilations, "data_format": "channels_last"}
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            if is_depthwise(layer):
                outputs = ops.depthwise_conv(x, kernel, strides=layer.strides, **options)
            else:
                outputs = ops.conv(x, kernel, strides=list(self.strides), **options)
        return tape.gradient(outputs, kernel, z)

    def rows(self):
        """Windows as matrices: for each offset along the first axis [units, T, rest of the kernel * channels]."""
        x, where = windows.fold(self.x, self.geometry) if self.folded else (self.x, self.geometry)
        by_offset = windows.rows(x, where, self.microbatch.device)
        return [tf.reshape(one, [-1, self.positions, math.prod(one.shape[-2:])]) for one in by_offset]

    @property
    def folded(self):
        """Whether channels are so few that `windows` had better copy more than one pixel at a time."""
        return self.may_fold and self.x.shape[-1] < 8 and windows.folds(self.geometry)

    def by_products(self):
        """Per-example gradients by matrix products, in pieces [units, size], one per offset along the first axis.

        There are as many pieces as offsets along all axes where that is faster: XLA then reads shifted inputs in place.
        """
        if self.blocks == 1 and self.microbatch.device != "cpu" and self.x.shape[-1] >= WIDE:
            return self._offset_products()
        z = tf.reshape(self.z, [-1, self.positions, self.z.shape[-1]])
        if self.blocks == 1:
            formed = [tf.matmul(rows, z, transpose_a=True) for rows in self.rows()]
        else:
            z = tf.reshape(z, [-1, self.positions, self.blocks, self.outputs_a_block])
            formed = [self._block_products(rows, z) for rows in self.rows()]
        return [tf.reshape(piece, [-1, math.prod(piece.shape[1:])]) for piece in formed]

    def arrange(self, pieces):
        """The pieces of one gradient in the shape of the kernel."""
        shape = self.layer.kernel.shape
        kernel = tf.concat([tf.reshape(piece, [-1]) for piece in pieces], axis=0)
        if self.folded:
            kernel = windows.unfold(tf.reshape(kernel, [-1, shape[-1]]), self.geometry)
        return tf.reshape(kernel, shape)

    def _offset_products(self):
        def by_unit(tensor):
            return tf.reshape(tensor, [-1, self.microbatch.views, *tensor.shape[1:]])

        z, over = by_unit(self.z), "vxyz"[: self.z.shape.rank - 1]
        read = windows.by_offset(self.x, self.geometry, self.microbatch.device)
        formed = [tf.einsum(f"u{over}i,u{over}o->uio", by_unit(one), z) for one in read]
        return [tf.reshape(piece, [-1, math.prod(piece.shape[1:])]) for piece in formed]

    def _block_products(self, rows, z):
        rest = rows.shape[-1] // self.x.shape[-1]
        rows = tf.reshape(rows, [-1, self.positions, rest, self.blocks, self.inputs_a_block])
        if is_depthwise(self.layer):
            return tf.einsum("utobp,utbq->uobq", rows, z)
        return tf.einsum("utobp,utbq->uopbq", rows, z)

    def lengths(self, channel_scale=None):
        """The sum over positions of the lengths of window times output gradient, [units, blocks].

        `channel_scale` multiplies the output gradients, channel by channel.
        """
        inputs, gradients = (
            tf.sqrt(rounding.not_vanished(squares, self.microbatch)) for squares in self._squares(channel_scale)
        )
        return tf.reduce_sum(inputs * gradients, axis=1)

    def _squares(self, channel_scale=None):
        """Squared lengths of what each position reads and of its output gradient, each [units, T, blocks]."""
        z = self.z if channel_scale is None else self.z * channel_scale
        lengths = []
        for tensor, channels in ((self.x, self.inputs_a_block), (z, self.outputs_a_block)):
            by_block = tf.reshape(tensor, [-1, *tensor.shape[1:-1], self.blocks, channels])
            lengths.append(rounding.squared_lengths(by_block, self.microbatch))
        lengths[0] = windows.sums(lengths[0], self.geometry, self.microbatch.device)
        return [tf.reshape(squares, [-1, self.positions, self.blocks]) for squares in lengths]

    def gram(self):
        """Squared norms from inner products between positions, for a convolution in one block, and their sizes."""
        z = tf.reshape(self.z, [-1, self.positions, self.z.shape[-1]])
        if self.by_pixels:
            inputs = windows.gram(self.x, self.geometry, self.microbatch.device)
        else:
            inputs = tf.add_n([tf.matmul(rows, rows, transpose_b=True) for rows in self.rows()])
        gradients = tf.matmul(z, z, transpose_b=True)
        squares = tuple(tf.squeeze(one, -1) for one in self._squares())
        return rounding.squares_of_products(inputs, gradients, squares, self.microbatch)
