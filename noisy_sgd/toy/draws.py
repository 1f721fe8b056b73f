"""Random draws of the toy problems in blocks: which examples are sampled, and the added noise.

Most of the cost of a toy step is drawing normals. Here whole blocks of steps are drawn at once, each from generators
keyed by (seed, block), so that a block does not depend on which thread draws it, or when. Threads draw the next blocks
beside the computation: NumPy's generators release the interpreter while they fill an array.

    source = draws.Source(seed=0, num_runs=20, num_examples=40, batch_size=1, normals_shape=(20, 100))
    for block in draws.prefetch(source, num_blocks=10):
        block.indices, block.normals                   # [steps, 20, 1], [steps, 20, 100]

Tested by tests/toy/simulation_test.py.
"""

import collections
import concurrent.futures
import dataclasses

import numpy as np

from noisy_sgd import keys

# A block of 2 MB of normals stays in the processor's cache.
_LARGEST_BLOCK = 2**18
_LONGEST_BLOCK = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """The draws of consecutive steps.

    Attributes:
        indices: sampled examples [steps, runs, batch], or None for full batches.
        normals: standard normals [steps, ...], or None without noise.
    """

    indices: np.ndarray | None
    normals: np.ndarray | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Draws as a pure function of (seed, block).

    Attributes:
        seed: integer.
        num_runs: R.
        num_examples: n.
        batch_size: examples per step, with replacement; None for full batches.
        normals_shape: shape of one step's normals; None without noise.
    """

    seed: int
    num_runs: int
    num_examples: int
    batch_size: int | None
    normals_shape: tuple[int, ...] | None

    @property
    def steps(self) -> int:
        """Steps per block, a function of the shapes alone."""
        size = max(self.num_runs * (self.batch_size or 1), int(np.prod(self.normals_shape or (1,))))
        return max(1, min(_LONGEST_BLOCK, _LARGEST_BLOCK // size))

    def __call__(self, block: int) -> Block:
        """The draws of block number `block`."""
        indices = normals = None
        if self.batch_size is not None:
            shape = (self.steps, self.num_runs, self.batch_size)
            indices = self._generator("order", block).integers(self.num_examples, size=shape)
        if self.normals_shape is not None:
            normals = self._generator("noise", block).standard_normal((self.steps, *self.normals_shape))
        return Block(indices=indices, normals=normals)

    def _generator(self, purpose, block):
        return keys.stream(keys.derive(self.seed, purpose), block)


def prefetch(draw, num_blocks, workers=2):
    """Yields blocks 0, 1, ... in order, drawn ahead by threads.

    Args:
        draw: block number to `Block`.
        num_blocks: how many.
        workers: threads; that many blocks are drawn ahead. Defaults to 2.

    Yields:
        What `draw` returns.
    """
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = collections.deque(pool.submit(draw, block) for block in range(min(workers, num_blocks)))
        for block in range(num_blocks):
            drawn = waiting.popleft().result()
            if block + workers < num_blocks:
                waiting.append(pool.submit(draw, block + workers))
            yield drawn
