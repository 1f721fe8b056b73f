"""ImageNet from the files that TensorFlow Datasets prepared: any example by its number, never all in memory.

`imagenet2012` is prepared once, from the two archives of image-net.org:

    import tensorflow_datasets as tfds
    builder = tfds.builder("imagenet2012", data_dir="DATA", file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir="FOLDER_OF_THE_ARCHIVES"))

Then a microbatch costs its own records only, and a logical batch of any size is a list of numbers:

    images = imagenet.load("DATA", image_size=224)
    read = images.train_reader()
    dataset = tf.data.Dataset.from_tensor_slices(indices).map(read, num_parallel_calls=tf.data.AUTOTUNE)

A set that was prepared as TFRecord files, TensorFlow Datasets' default, is read likewise. Only the start takes longer,
because the places of the records have to be found first.

An image is the central square of a photograph, decoded alone and resized (`FRAMINGS`). It depends on nothing but the
photograph itself.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from noisy_sgd import checks
from noisy_sgd.data import array_records, autotuning, bundled, prepared_files

NAME = prepared_files.NAME
# Mean and standard deviation of red, green and blue, in [0, 255]: public numbers, which every implementation has.
CHANNEL_MEANS = (0.485 * 255, 0.456 * 255, 0.406 * 255)
CHANNEL_STDS = (0.229 * 255, 0.224 * 255, 0.225 * 255)

_FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
    "file_name": tf.io.FixedLenFeature([], tf.string),
}
# How many bytes at either end of a file enter the fingerprint.
_END = 2**16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Framing:
    """Which part of a photograph becomes an image, and how.

    Attributes:
        part: (numerator, denominator), the side of the central square over the photograph's shorter side.
        method: of `tf.image.resize`.
        antialias: whether a smaller image is smoothed first.
        enlargement: (numerator, denominator), the side of an image that is to be cropped over that of its crop.
    """

    part: tuple[int, int]
    method: str
    antialias: bool
    enlargement: tuple[int, int] = (1, 1)


FRAMINGS = {
    # Sander et al. (2023): Resize(256) and CenterCrop(224) in one go.
    "tan": Framing(part=(7, 8), method="bilinear", antialias=True),
    # De et al. (2022), in their published code: the whole central square, and crops of 224 pixels out of 268.
    "deepmind": Framing(part=(1, 1), method="bicubic", antialias=False, enlargement=(6, 5)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordImageSet:
    """Images in files, split for training and test; read and batched like `bundled.ImageSet`.

    Attributes:
        name: name and version of the TensorFlow Datasets builder.
        image_size: height and width in pixels.
        train: the training examples.
        test: the test examples, ImageNet's validation split.
        num_classes: number of classes.
        framing: how photographs become images.
        enlarged: whether training images are read at the size from which the framing's crops are taken.
        skips_corrupt: whether an image that cannot be decoded is read as zeros with the label -1; otherwise it ends the
            iteration with an error.
        corrupt: the names of the images that could not be decoded so far, if they are skipped. They are private facts
            of a DP-SGD run.
        pixel_range: lowest and highest value of a pixel.
        normalization: public means and standard deviations of the channels.
        present: None, all training examples are present.
    """

    name: str
    image_size: int
    train: array_records.Records
    test: array_records.Records
    num_classes: int
    framing: Framing = FRAMINGS["tan"]
    enlarged: bool = False
    skips_corrupt: bool = False
    corrupt: set[str] = dataclasses.field(default_factory=set, compare=False)
    pixel_range: tuple[float, float] = (0.0, 255.0)
    normalization: tuple[tuple[float, ...], tuple[float, ...]] = (CHANNEL_MEANS, CHANNEL_STDS)
    present: None = None

    @property
    def train_image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image that `train_reader` reads."""
        numerator, denominator = self.framing.enlargement if self.enlarged else (1, 1)
        side = self.image_size * numerator // denominator
        return (side, side, 3)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return (self.image_size, self.image_size, 3)

    @property
    def num_train_examples(self) -> int:
        """How many training examples there are."""
        return len(self.train)

    def train_reader(self) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """A function from indices int64 [m] to images uint8 [m, *train_image_shape] and labels int32 [m].

        Decoding an image of ordinary size takes about 2.1 ms of one core: map it in parallel. A file that cannot be
        read raises `tf.errors.UnknownError` where the dataset is iterated; `array_records.failure` has the sentence.
        """
        return self._reader(self.train, self.train_image_shape[0])

    def test_batches(self, size: int) -> tf.data.Dataset:
        """The test images in order, in batches of one shape, read again in each iteration.

        Args:
            size: of a batch; all test images are one batch where they are fewer.

        Returns:
            A dataset of images uint8 [size, height, width, 3], labels int32 [size] and mask bool [size]; the last batch
            is padded with the first image, and the mask says so. An image that is skipped is masked too.

        Raises:
            ValueError: for a size below 1.
        """
        checks.at_least("size", size, 1)
        count = len(self.test)
        size = min(size, count)
        rows = np.arange(-(-count // size) * size)
        mask = rows < count
        rows = np.where(mask, rows, 0)
        read = self._reader(self.test, self.image_size)

        def batch(rows, mask):
            images, labels = read(rows)
            return images, tf.maximum(labels, 0), tf.logical_and(mask, labels >= 0)

        dataset = tf.data.Dataset.from_tensor_slices((rows.reshape(-1, size), mask.reshape(-1, size)))
        # One batch is decoded on all cores: more batches at a time would only need more memory.
        return autotuning.off(dataset.map(batch).prefetch(1))

    def _reader(self, records: array_records.Records, side: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        def note(names, found):
            self.corrupt.update(name.decode() for name in names[~found])
            return found

        def read(indices):
            serialized = tf.numpy_function(records.fetch, [indices], tf.string, stateful=False)
            parsed = tf.io.parse_example(tf.ensure_shape(serialized, indices.shape), _FEATURES)
            labels = tf.cast(parsed["label"], tf.int32)
            if not self.skips_corrupt:
                return _decoded(parsed["image"], side, self.framing), labels
            images, found = _decoded_or_zeros(parsed["image"], side, self.framing)

            def noted():
                return tf.numpy_function(note, [parsed["file_name"], found], tf.bool)

            found = tf.cond(tf.reduce_all(found), lambda: found, noted)
            labels = tf.where(tf.ensure_shape(found, indices.shape), labels, -1)
            return tf.ensure_shape(images, [*indices.shape, side, side, 3]), labels

        return read

    def fault(self, error: Exception) -> str | None:
        """One sentence about the image that a failed step could not decode; None for other errors."""
        if not array_records.is_no_jpeg(error):
            return None
        sentences = (records.damaged(self._decodable) for records in (self.train, self.test))
        return next(filter(None, sentences), None)

    def _decodable(self, serialized: bytes) -> bool:
        try:
            decode(encoded(np.array([serialized], object))[0], self.image_size, self.framing)
        except tf.errors.InvalidArgumentError:
            return False
        return True

    def fingerprint(self) -> str:
        """SHA-256 that identifies the training data, in hexadecimal: the same for the same files in the same order.

        It covers name, version, image size, framing and the chosen examples. Of every record file it covers the name,
        the size, the number of examples, and the first and last 64 KiB, which hold an ArrayRecord file's index. All
        140 GB of contents would take too long: a replaced image of the same length inside a file is not noticed.
        """
        digest = hashlib.sha256(f"noisy_sgd records\0{self.name}\0{self.train_image_shape}{self.framing}".encode())
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
    held_out: int = 0,
    framing: str = "tan",
    enlarged: bool = False,
    skips_corrupt: bool = False,
) -> RecordImageSet:
    """Opens `imagenet2012` as TensorFlow Datasets prepared it; nothing is downloaded, and no image is read.

    Args:
        data_dir: the `data_dir` it was prepared in; it holds imagenet2012/VERSION.
        image_size: height and width in pixels. Defaults to 224.
        train_size: how many training examples to keep, the first of a permutation drawn from `subset_seed`. Defaults to
            None, all of them.
        subset_seed: which examples are kept, as in `bundled.load`. Defaults to 0.
        held_out: the first so many training examples are the test examples, and are not trained on; De et al. (2022)
            hold out 10,000. Defaults to 0, ImageNet's validation split.
        framing: one of `FRAMINGS`. Defaults to "tan".
        enlarged, skips_corrupt: as in `RecordImageSet`. Default to False.

    Returns:
        The image set, with the split "train" for training and "validation" for test.

    Raises:
        ValueError: if the folder does not hold the set as a complete list of files, or a size is invalid.
    """
    checks.at_least("image_size", image_size, 1)
    chosen = FRAMINGS[checks.choice("framing", framing, FRAMINGS)]
    import tensorflow_datasets as tfds  # Takes a second to import; only this set needs it.

    version = prepared_files.newest(data_dir)
    try:
        builder = tfds.builder_from_directory(version)
        formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    except Exception as error:  # The parsers of its JSON files raise many types.
        reason = " ".join(str(error).split())
        raise ValueError(
            f"`data_dir` must hold {NAME} with a description that can be read: {version} ({reason}); prepare it again"
        ) from error
    read = next((name for name in ("array_record", "tfrecord") if name in formats), None)
    if read is None:
        raise ValueError(
            f"`data_dir` must hold {NAME} as array_record or tfrecord, but holds it as {', '.join(formats)}; "
            f"{prepared_files.command('ANOTHER_FOLDER')}. Received: data_dir={str(data_dir)!r}"
        )
    builder.info.set_file_format(read, override=True, override_if_initialized=True)
    train, test = (prepared_files.records(builder, split, read, data_dir) for split in ("train", "validation"))
    prepared_files.check_open_files(len(train.files) + len(test.files))
    rows = np.arange(len(train))
    if held_out:
        bundled.check_held_out(NAME, len(train), held_out)
        test, rows = dataclasses.replace(train, rows=rows[:held_out]), rows[held_out:]
    if train_size is not None:
        rows = rows[bundled.subset_rows(NAME, len(rows), train_size, subset_seed)]
    if len(rows) < len(train) or train_size is not None:
        train = dataclasses.replace(train, rows=rows)
    return RecordImageSet(
        name=builder.info.full_name,
        image_size=image_size,
        train=train,
        test=test,
        num_classes=builder.info.features["label"].num_classes,
        framing=chosen,
        enlarged=enlarged,
        skips_corrupt=skips_corrupt,
    )


def encoded(records: np.ndarray | tf.Tensor) -> tf.Tensor:
    """The JPEGs in serialized examples, bytes [m] to string [m]."""
    return tf.io.parse_example(tf.ensure_shape(records, [None]), _FEATURES)["image"]


def decode(encoded: tf.Tensor, side: int, framing: Framing) -> tf.Tensor:
    """JPEG bytes to uint8 [side, side, 3]; only the blocks of the central square are decoded."""
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
    numerator, denominator = framing.part
    part = tf.maximum(tf.minimum(height, width) * numerator // denominator, 1)
    window = [(height - part) // 2, (width - part) // 2, part, part]
    # The accurate method: the fast one may differ between builds of the library.
    square = tf.io.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")
    resized = tf.image.resize(square, [side, side], method=framing.method, antialias=framing.antialias) + 0.5
    if framing.method != "bilinear":
        # Means of pixels stay between them, but a cubic overshoots.
        resized = tf.clip_by_value(resized, 0.0, 255.0)
    return tf.cast(resized, tf.uint8)


def _decoded(encoded: tf.Tensor, side: int, framing: Framing) -> tf.Tensor:
    """Images uint8 [m, side, side, 3]; the first that cannot be decoded raises."""
    return tf.map_fn(
        lambda one: decode(one, side, framing),
        encoded,
        fn_output_signature=tf.TensorSpec([side, side, 3], tf.uint8),
        parallel_iterations=8,
    )


def _decoded_or_zeros(encoded: tf.Tensor, side: int, framing: Framing) -> tuple[tf.Tensor, tf.Tensor]:
    """Images uint8 [m, side, side, 3], zeros where one cannot be decoded, and bool [m], whether it can."""
    # An operation cannot catch an error; only a dataset can leave out its elements that raise one.
    count = tf.shape(encoded)[0]
    images = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded))
    images = images.map(lambda row, one: (row, decode(one, side, framing)), num_parallel_calls=8).ignore_errors()
    # One more row, so that there is at least one.
    last = tf.data.Dataset.from_tensors((count, tf.zeros([side, side, 3], tf.uint8)))
    rows, decoded = images.concatenate(last).batch(tf.cast(count, tf.int64) + 1).get_single_element()
    rows = rows[:, tf.newaxis]
    whole = tf.scatter_nd(rows, decoded, [count + 1, side, side, 3])[:-1]
    return whole, tf.scatter_nd(rows, tf.ones_like(rows[:, 0]), [count + 1])[:-1] > 0
