"""ImageNet from ArrayRecord files that TensorFlow Datasets prepared: any example by its number, never all in memory.

`imagenet2012` is prepared once, from the two archives of image-net.org:

    import tensorflow_datasets as tfds
    builder = tfds.builder("imagenet2012", data_dir="DATA", file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir="FOLDER_OF_THE_ARCHIVES"))

Then a microbatch costs its own records only, and a logical batch of any size is a list of numbers:

    images = imagenet.load("DATA", image_size=224)
    read = images.train_reader()
    dataset = tf.data.Dataset.from_tensor_slices(indices).map(read, num_parallel_calls=tf.data.AUTOTUNE)

An image is what Sander et al. (2023) call their center transform: Resize(256) and CenterCrop(224) in one go: the
central square of 7/8 of the shorter side, resized. It depends on nothing but the image itself.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from noisy_sgd import checks
from noisy_sgd.data import array_records, bundled

NAME = "imagenet2012"

_FEATURES = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
# How many bytes at either end of a file enter the fingerprint.
_END = 2**16
# Files that a process keeps open beside the records: libraries, logs, events, checkpoints.
_OTHER_OPEN_FILES = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordImageSet:
    """Images in files, split for training and test; read and batched like `bundled.ImageSet`.

    Attributes:
        name: name and version of the TensorFlow Datasets builder.
        image_size: height and width in pixels.
        train: the training examples.
        test: the test examples, ImageNet's validation split.
        num_classes: number of classes.
        pixel_range: lowest and highest value of a pixel.
        present: None, all training examples are present.
    """

    name: str
    image_size: int
    train: array_records.Records
    test: array_records.Records
    num_classes: int
    pixel_range: tuple[float, float] = (0.0, 255.0)
    present: None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return (self.image_size, self.image_size, 3)

    @property
    def num_train_examples(self) -> int:
        """How many training examples there are."""
        return len(self.train)

    def train_reader(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """A function from indices int64 [m] to images uint8 [m, size, size, 3] and labels int32 [m].

        Decoding an image of ordinary size takes about 2.4 ms of one core: map it in parallel. A file that cannot be
        read raises `tf.errors.UnknownError` where the dataset is iterated; `array_records.failure` has the sentence.
        """
        return _reader(self.train, self.image_size)

    def test_batches(self, size: int) -> tf.data.Dataset:
        """The test images in order, in batches of one shape, read again in each iteration.

        Args:
            size: of a batch; all test images are one batch where they are fewer.

        Returns:
            A dataset of images uint8 [size, height, width, 3], labels int32 [size] and mask bool [size]; the last batch
            is padded with the first image, and the mask says so.

        Raises:
            ValueError: for a size below 1.
        """
        checks.at_least("size", size, 1)
        count = len(self.test)
        size = min(size, count)
        rows = np.arange(-(-count // size) * size)
        mask = rows < count
        rows = np.where(mask, rows, 0)
        read = _reader(self.test, self.image_size)
        dataset = tf.data.Dataset.from_tensor_slices((rows.reshape(-1, size), mask.reshape(-1, size)))
        # One batch is decoded on all cores: more batches at a time would only need more memory.
        return dataset.map(lambda rows, mask: (*read(rows), mask)).prefetch(1)

    def fault(self, error: Exception) -> str | None:
        """One sentence about the image that a failed step could not decode; None for other errors."""
        if not array_records.is_no_jpeg(error):
            return None
        sentences = (records.damaged(self._decodable) for records in (self.train, self.test))
        return next(filter(None, sentences), None)

    def _decodable(self, serialized: bytes) -> bool:
        try:
            _decode(tf.io.parse_single_example(serialized, _FEATURES)["image"], self.image_size)
        except tf.errors.InvalidArgumentError:
            return False
        return True

    def fingerprint(self) -> str:
        """SHA-256 that identifies the training data, in hexadecimal: the same for the same files in the same order.

        It covers name, version, image size and the chosen examples. Of every record file it covers the name, the size,
        the number of examples, and the first and last 64 KiB, which hold the file's index. All 140 GB of contents would
        take too long: a replaced image of exactly the same length inside a file is not noticed.
        """
        digest = hashlib.sha256(f"noisy_sgd records\0{self.name}\0{self.image_size}".encode())
        for file in self.train.files:
            digest.update(f"\0{file.path.name}\0{file.size}\0{file.examples}\0".encode())
            with file.path.open("rb") as contents:
                digest.update(contents.read(_END))
                contents.seek(max(0, file.size - _END))
                digest.update(contents.read(_END))
        if self.train.rows is not None:
            digest.update(b"\0rows\0" + self.train.rows.astype("<i8").tobytes())
        return digest.hexdigest()


def load(
    data_dir: str | pathlib.Path | None,
    *,
    image_size: int = 224,
    train_size: int | None = None,
    subset_seed: int = 0,
) -> RecordImageSet:
    """Opens `imagenet2012` as TensorFlow Datasets prepared it; nothing is downloaded, and no image is read.

    Args:
        data_dir: the `data_dir` it was prepared in; it holds imagenet2012/VERSION.
        image_size: height and width in pixels. Defaults to 224.
        train_size: how many training examples to keep, the first of a permutation drawn from `subset_seed`. Defaults to
            None, all of them.
        subset_seed: which examples are kept, as in `bundled.load`. Defaults to 0.

    Returns:
        The image set, with the split "train" for training and "validation" for test.

    Raises:
        ValueError: if the folder does not hold the set as a complete list of ArrayRecord files, or a size is invalid.
    """
    checks.at_least("image_size", image_size, 1)
    import tensorflow_datasets as tfds  # Takes a second to import; only this set needs it.

    version = _prepared(data_dir)
    try:
        builder = tfds.builder_from_directory(version)
        formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    except Exception as error:  # The parsers of its JSON files raise many types.
        reason = " ".join(str(error).split())
        raise ValueError(
            f"`data_dir` holds a description of {NAME} that cannot be read: {version} ({reason})"
        ) from error
    if "array_record" not in formats:
        raise ValueError(
            f"`data_dir` holds {NAME} as {', '.join(formats)} only, which cannot be read in random order; "
            f"{_command('ANOTHER_FOLDER')}. Received: data_dir={str(data_dir)!r}"
        )
    builder.info.set_file_format("array_record", override=True, override_if_initialized=True)
    train, test = (_records(tfds, builder, split, data_dir) for split in ("train", "validation"))
    _check_open_files(len(train.files) + len(test.files))
    if train_size is not None:
        train = dataclasses.replace(train, rows=bundled.subset_rows(NAME, len(train), train_size, subset_seed))
    return RecordImageSet(
        name=builder.info.full_name,
        image_size=image_size,
        train=train,
        test=test,
        num_classes=builder.info.features["label"].num_classes,
    )


def _prepared(data_dir: str | pathlib.Path | None) -> str:
    """The folder of the newest version in `data_dir`."""
    if data_dir is None:
        raise ValueError(
            f"`data_dir` must name the folder that holds {NAME}; {_command('FOLDER')}. Received: data_dir=None"
        )
    folders = sorted(path.parent for path in pathlib.Path(data_dir, NAME).glob("*/dataset_info.json"))
    # The remains of preparations that were interrupted.
    folders = [path for path in folders if not path.name.startswith("incomplete.")]
    versions = [path for path in folders if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    if not versions and folders:
        raise ValueError(
            f"`data_dir` must hold {NAME} in a folder named after its version, such as {NAME}/5.1.0, but holds "
            f"{', '.join(f'{NAME}/{path.name}' for path in folders)}; give the folder its original name. "
            f"Received: data_dir={str(data_dir)!r}"
        )
    if not versions:
        raise ValueError(
            f"`data_dir` holds no prepared {NAME}; {_command(data_dir)}. Received: data_dir={str(data_dir)!r}"
        )
    newest = max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    _check_version(newest, data_dir)
    return str(newest)


def _check_version(folder: pathlib.Path, data_dir) -> None:
    """Refuses a folder that is not named after the version it holds."""
    try:
        held = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        # TensorFlow Datasets says what is wrong with it.
        return
    if held != folder.name:
        raise ValueError(
            f"`data_dir` must hold {NAME} in a folder named after its version, but holds version {held} in "
            f"{folder}; rename the folder to {held}. Received: data_dir={str(data_dir)!r}"
        )


def _command(data_dir: str | pathlib.Path) -> str:
    """How to prepare the set, without TensorFlow Datasets' command line, which needs Apache Beam for no reason."""
    return (
        "put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar in ARCHIVES and prepare it by: "
        f"python -c \"import tensorflow_datasets as tfds; tfds.builder('{NAME}', data_dir='{data_dir}', "
        "file_format='array_record').download_and_prepare("
        "download_config=tfds.download.DownloadConfig(manual_dir='ARCHIVES'))\""
    )


def _records(tfds, builder, split: str, data_dir) -> array_records.Records:
    """A split's records; all of its files must exist."""
    if split not in builder.info.splits:
        raise ValueError(f"`data_dir` holds {NAME} without its {split} split. Received: data_dir={str(data_dir)!r}")
    paths = [pathlib.Path(path) for path in builder.info.splits[split].filepaths]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"`data_dir` lacks {len(missing)} of the {len(paths)} files of the {split} split of {NAME}, the first of "
            f"them {missing[0]}. Received: data_dir={str(data_dir)!r}"
        )
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    source = builder.as_data_source(split, deserialize_method=raw, file_format="array_record")
    examples = builder.info.splits[split].shard_lengths
    files = [
        array_records.RecordFile(path=path, size=path.stat().st_size, examples=count)
        for path, count in zip(paths, examples, strict=True)
    ]
    return array_records.Records(source=source, files=tuple(files))


def _check_open_files(count: int) -> None:
    """Refuses more record files than the process may open: each stays open, and a run would fail in the middle."""
    import resource  # Not on Windows, where the other image sets work.

    needed, allowed = count + _OTHER_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed not in (resource.RLIM_INFINITY, -1) and allowed < needed:
        raise ValueError(
            f"`data_dir` holds {NAME} in {count} files, which stay open while they are read, and this process may open "
            f"{allowed} files in all; run `ulimit -n {needed}` before it"
        )


def _reader(records: array_records.Records, image_size: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    def read(indices):
        serialized = tf.numpy_function(records.fetch, [indices], tf.string, stateful=False)
        parsed = tf.io.parse_example(tf.ensure_shape(serialized, indices.shape), _FEATURES)
        images = tf.map_fn(
            lambda encoded: _decode(encoded, image_size),
            parsed["image"],
            fn_output_signature=tf.TensorSpec([image_size, image_size, 3], tf.uint8),
            parallel_iterations=8,
        )
        return images, tf.cast(parsed["label"], tf.int32)

    return read


def _decode(encoded: tf.Tensor, image_size: int) -> tf.Tensor:
    """JPEG bytes to uint8 [image_size, image_size, 3]: 7/8 of the shorter side, from the center."""
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
    side = tf.maximum(tf.minimum(height, width) * 7 // 8, 1)
    window = [(height - side) // 2, (width - side) // 2, side, side]
    # The accurate method: the fast one may differ between builds of the library.
    square = tf.io.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")
    resized = tf.image.resize(square, [image_size, image_size], method="bilinear", antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)
