"""The workloads' networks in PyTorch, of layers that Opacus serves, with as many weights and products as Keras' have.

    model = torch_networks.made("text_encoder", shape=(128,), private=True)

Attention is two Linear layers, with PyTorch's own fused attention between them; Opacus' `DPMultiheadAttention` was no
faster. Positions are looked up once per example, because Opacus needs an axis of examples. An LSTM is PyTorch's, and
`DPLSTM` where it is private; the second of their two biases is zero and frozen, because Keras' LSTM has one. LoRA
multiplies the inputs by A and B, since Opacus needs layers; Keras adds A B to the kernel, with fewer products.

Covered by tests/experiments/benchmarks/peers_test.py.
"""

import torch
from opacus import layers
from torch import nn

from noisy_sgd.experiments.benchmarks import networks

_STEM_WIDTH, _GROUPS, _WIDTH = 16, 16, 4
_EPSILON = 1e-6


def made(workload: str, shape, *, private: bool) -> nn.Module:
    """The network.

    Args:
        workload: one of `cases.PEERS`.
        shape: of an example; of an image, channels first.
        private: whether Opacus is to train it.
    """
    return _MAKERS[workload](shape, private)


class _Attention(nn.Module):
    """Self-attention; with LoRA on queries and values, everything else is frozen."""

    def __init__(self, width, heads, causal, adapted):
        super().__init__()
        self.heads, self.causal, self.rank = heads, causal, networks.LORA_RANK if adapted else None
        self.projections, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        if adapted:
            for weight in self.parameters():
                weight.requires_grad = False
            # As Keras' EinsumDense has it: a matrix A for each head, and one B.
            self.wide = nn.ModuleList(nn.Linear(width, heads * self.rank, bias=False) for _ in range(2))
            self.small = nn.ModuleList(nn.Linear(self.rank, width // heads, bias=False) for _ in range(2))

    def forward(self, x):
        # [B, T, 3, heads, width of a head] -> three times [B, heads, T, width of a head]
        q, k, v = self.projections(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.rank is not None:
            q, v = (one + self._added(x, index) for index, one in enumerate((q, v)))
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _added(self, x, index):
        # Opacus' ghost norms of a Linear layer take one axis of positions.
        rows = self.wide[index](x).unflatten(-1, (self.heads, self.rank)).flatten(1, 2)
        return self.small[index](rows).unflatten(1, (-1, self.heads)).transpose(1, 2)


class _Block(nn.Module):
    """As `networks` has it: normalized first, or after each addition."""

    def __init__(self, width, heads, *, causal=False, first=False, adapted=False):
        super().__init__()
        self.first = first
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=_EPSILON) for _ in range(2))
        self.attention = _Attention(width, heads, causal, adapted)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        if self.first:
            x = x + self.attention(self.norms[0](x))
            return x + self.feed(self.norms[1](x))
        x = self.norms[0](x + self.attention(x))
        return self.norms[1](x + self.feed(x))


class _Tokens(nn.Module):
    """The sum of the words' rows, or of the projected patches, and the rows of their positions."""

    def __init__(self, tokens, length, width):
        super().__init__()
        self.tokens, self.positions = tokens, nn.Embedding(length, width)
        self.length = length

    def forward(self, inputs):
        positions = torch.arange(self.length).repeat(inputs.shape[0], 1)
        return self.tokens(inputs) + self.positions(positions)


class _Patches(nn.Module):
    """[B, 3, side, side] -> [B, patches, 3 * patch^2]."""

    def forward(self, images):
        size = networks.PATCH
        patches = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))
        return patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


class _Mean(nn.Module):
    def forward(self, x):
        return x.mean(dim=1)


class _Last(nn.Module):
    """The last output of a recurrent layer."""

    def __init__(self, recurrent):
        super().__init__()
        self.recurrent = recurrent

    def forward(self, x):
        return self.recurrent(x)[0][:, -1]


def _encoder(*, adapted=False):
    width = networks.WIDTH
    tokens = _Tokens(nn.Embedding(networks.WORDS, width), networks.LENGTH, width)
    blocks = [_Block(width, networks.HEADS, first=adapted, adapted=adapted) for _ in range(networks.BLOCKS)]
    if adapted:
        frozen = [tokens, *(part for block in blocks for part in (block.norms, block.feed))]
        for weight in (weight for part in frozen for weight in part.parameters()):
            weight.requires_grad = False
    return nn.Sequential(tokens, *blocks, _Mean(), nn.Linear(width, 2))


def _decoder(*, tied=False):
    width = networks.WIDTH
    words = nn.Embedding(networks.WORDS, width)
    out = nn.Linear(width, networks.WORDS, bias=not tied)
    if tied:
        out.weight = words.weight
    blocks = [_Block(width, networks.HEADS, causal=True) for _ in range(networks.BLOCKS)]
    return nn.Sequential(_Tokens(words, networks.LENGTH, width), *blocks, out)


def _vision_transformer():
    width = networks.VISION_WIDTH
    tokens = _Tokens(nn.Linear(3 * networks.PATCH**2, width), networks.PATCHES, width)
    blocks = [_Block(width, networks.VISION_HEADS, first=True) for _ in range(networks.VISION_BLOCKS)]
    return nn.Sequential(_Patches(), tokens, *blocks, nn.LayerNorm(width, eps=_EPSILON), _Mean(), nn.Linear(width, 10))


def _lstm(private):
    kind = layers.DPLSTM if private else nn.LSTM
    recurrent = kind(networks.LSTM_WIDTH, networks.LSTM_UNITS, batch_first=True)
    (second,) = (weight for name, weight in recurrent.named_parameters() if name.startswith("bias_hh"))
    second.requires_grad = False
    nn.init.zeros_(second)
    words = nn.Embedding(networks.LSTM_WORDS, networks.LSTM_WIDTH)
    return nn.Sequential(words, _Last(recurrent), nn.Linear(networks.LSTM_UNITS, 2))


def _perceptron(shape):
    sizes = (shape[0] * shape[1] * shape[2], 512, 512)
    hidden = [part for pair in zip(sizes, sizes[1:], strict=False) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(512, 10))


def _convolutional(shape):
    return nn.Sequential(
        nn.ZeroPad2d(3),
        nn.Conv2d(shape[0], 16, 8, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def _wide_resnet(channels):
    def norm(width):
        return nn.GroupNorm(_GROUPS, width)

    class Block(nn.Module):
        def __init__(self, width, wider, stride, first):
            super().__init__()
            self.norm1, self.conv1 = norm(width), nn.Conv2d(width, wider, 3, stride, padding=1)
            self.norm2, self.conv2 = norm(wider), nn.Conv2d(wider, wider, 3, padding=1)
            self.shortcut = nn.Sequential(norm(width), nn.Conv2d(width, wider, 1, stride)) if first else None

        def forward(self, x):
            positive = nn.functional.relu(x)
            out = self.conv1(self.norm1(positive))
            out = self.conv2(self.norm2(nn.functional.relu(out)))
            return out + (x if self.shortcut is None else self.shortcut(positive))

    blocks, width = [nn.Conv2d(channels, _STEM_WIDTH, 3, padding=1)], _STEM_WIDTH
    for stage in range(3):
        wider = _STEM_WIDTH * 2**stage * _WIDTH
        for block in range(2):
            blocks.append(Block(width, wider, 2 if stage > 0 and block == 0 else 1, block == 0))
            width = wider
    end = (nn.ReLU(), norm(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    return nn.Sequential(*blocks, *end)


_MAKERS = {
    "mlp": lambda shape, private: _perceptron(shape),
    "mnist_cnn": lambda shape, private: _convolutional(shape),
    "wrn_16_4": lambda shape, private: _wide_resnet(shape[0]),
    "text_encoder": lambda shape, private: _encoder(),
    "decoder": lambda shape, private: _decoder(),
    "decoder_tied": lambda shape, private: _decoder(tied=True),
    "vit_tiny": lambda shape, private: _vision_transformer(),
    "lstm_text": lambda shape, private: _lstm(private),
    "lora_bert": lambda shape, private: _encoder(adapted=True),
}
