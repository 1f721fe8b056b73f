"""One key per purpose, and NumPy's generators of a key: all randomness is a function of (seed, purpose, step).

Inclusion of examples, augmentation, initialization, dropout and noise must be independent of each other. One key for
two purposes would make them dependent, and for inclusion and noise that would void privacy amplification. So every
purpose has its own 128 bits, derived from the seed by SHA-256.

    keys.derive(7, "noise")    # two signed 64-bit integers, what `tf.random.stateless_normal(seed=...)` takes
"""

import hashlib
import os
import typing

from noisy_sgd import checks

if typing.TYPE_CHECKING:
    import numpy as np

PURPOSES = (
    "noise",
    "order",
    "inclusion",
    "augmentation",
    "initialization",
    "dropout",
    "synthetic data",
    "subset",
    "sparsification",
    "fingerprint",
    "canaries",
)


def derive(seed: int | bytes, purpose: str) -> tuple[int, int]:
    """The key of one purpose: 128 bits of SHA-256(purpose, seed), as two signed 64-bit integers.

    Args:
        seed: an integer of any size and sign, or bytes (a secret drawn by `secret`).
        purpose: one of `PURPOSES`.

    Returns:
        Two integers in [-2**63, 2**63).

    Raises:
        ValueError: for a purpose that is not in the list.
    """
    checks.choice("purpose", purpose, PURPOSES)
    material = seed if isinstance(seed, bytes) else str(int(seed)).encode()
    digest = hashlib.sha256(b"noisy_sgd\0" + purpose.encode() + b"\0" + material).digest()
    return (
        int.from_bytes(digest[:8], "little", signed=True),
        int.from_bytes(digest[8:16], "little", signed=True),
    )


def generator(seed: int, purpose: str) -> "np.random.Generator":
    """NumPy's generator of an integer seed of any sign.

    Args:
        seed: NumPy uses a seed of at least 0 directly; a negative seed is replaced by the key of the purpose.
        purpose: one of `PURPOSES`.

    Returns:
        A new generator.
    """
    import numpy as np  # Importing the package imports nothing heavy.

    return np.random.default_rng(seed) if seed >= 0 else stream(derive(seed, purpose))


def stream(key: tuple[int, int], *numbers: int) -> "np.random.Generator":
    """NumPy's default generator of a key and numbers of at least 0, such as the number of a block of draws."""
    import numpy as np  # As above.

    return np.random.default_rng([*_words(key), *numbers])


def counter_stream(key: tuple[int, int], draw: int = 0) -> "np.random.Generator":
    """NumPy's Philox generator of a key, with a separate counter range for every draw.

    Args:
        key: from `derive`.
        draw: which draw, in [0, 2**64). The counter's high words hold it, and the low words count the random numbers of
            the draw, so that draws of one key never overlap.

    Returns:
        A new generator.
    """
    import numpy as np  # As above.

    return np.random.Generator(np.random.Philox(key=_words(key), counter=[0, 0, draw, 0]))


def number(key: tuple[int, int], name: str) -> int:
    """32 bits of a key and a name, for code that takes a small integer as a seed, such as Keras' initializers."""
    import numpy as np  # As above.

    return int(np.random.SeedSequence([*_words(key), *name.encode()]).generate_state(1)[0])


def arbitrary(index: int) -> "np.random.Generator":
    """NumPy's generator for arbitrary values that are the same every time, for trials and timings."""
    import numpy as np  # As above.

    return np.random.default_rng(index)


def secret() -> bytes:
    """128 bits from the operating system, for noise that nobody can recompute."""
    return os.urandom(16)


def fingerprint(secret: bytes) -> str:
    """What a record may say of a secret: 64 bits of its key for the purpose "fingerprint", as hexadecimal digits.

    Equal secrets have equal fingerprints. SHA-256 does not lead back to a secret of 128 random bits, nor to the keys of
    its other purposes. An integer seed could be guessed from its fingerprint, and so it has none.

    Args:
        secret: at least 16 bytes, from `secret`.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(secret, bytes) or len(secret) < 16:
        raise ValueError(f"`secret` must be at least 16 bytes from keys.secret(). Received: {type(secret).__name__}")
    return f"{derive(secret, 'fingerprint')[0] % 2**64:016x}"


def _words(key: tuple[int, int]) -> list[int]:
    """The two halves as numbers of at least 0, which NumPy needs."""
    return [half % 2**64 for half in key]
