"""What of `imagenet2012` is read, and how: held-out images, framings, TFRecord files, images that cannot be decoded."""

import concurrent.futures
import io
import os
import pathlib
import shutil
import tempfile
import threading
import time
from unittest import mock

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl.testing import absltest, parameterized
from PIL import Image

from noisy_sgd import sampling
from noisy_sgd.data import array_records, augmentation, bundled, imagenet, streaming, tf_records
from tests import ilsvrc

TRAIN, VALIDATION = 30, 7
CORRUPT = (4, 17)

_folder = tempfile.TemporaryDirectory()
_jpegs = {}


def setUpModule():
    for name, corrupt in (("whole", ()), ("damaged", CORRUPT)):
        archives = os.path.join(_folder.name, f"{name}_archives")
        jpegs = ilsvrc.write(archives, per_synset=TRAIN // 3, validation=VALIDATION, corrupt=corrupt)
        _jpegs[name] = jpegs
        for file_format in ("array_record", "tfrecord") if name == "whole" else ("array_record",):
            ilsvrc.prepare(folder(name, file_format), archives, file_format, num_shards=3)


def tearDownModule():
    _folder.cleanup()


def folder(name="whole", file_format="array_record"):
    return os.path.join(_folder.name, name, file_format)


def read(images, indices):
    return [np.asarray(part) for part in images.train_reader()(tf.constant(indices, tf.int64))]


def names(images):
    """The archives' names of all training examples, in their order."""
    feature = {"file_name": tf.io.FixedLenFeature([], tf.string)}
    source = images.train.source
    return [tf.io.parse_single_example(source[row], feature)["file_name"].numpy().decode() for row in range(TRAIN)]


class HeldOutTest(absltest.TestCase):
    def test_the_first_training_images_are_tested_on_and_the_others_trained_on(self):
        whole = imagenet.load(folder(), image_size=8)
        split = imagenet.load(folder(), image_size=8, held_out=12)
        self.assertEqual((split.num_train_examples, len(split.test)), (TRAIN - 12, 12))
        everything, labels = read(whole, np.arange(TRAIN))
        np.testing.assert_array_equal(read(split, np.arange(TRAIN - 12))[0], everything[12:])
        held, held_labels, mask = (np.concatenate(part) for part in zip(*split.test_batches(5), strict=True))
        np.testing.assert_array_equal(held[mask], everything[:12])
        np.testing.assert_array_equal(held_labels[mask], labels[:12])
        self.assertNotEqual(split.fingerprint(), whole.fingerprint())

    def test_a_subset_is_of_the_others(self):
        split = imagenet.load(folder(), image_size=8, held_out=12, train_size=5)
        everything, _ = read(imagenet.load(folder(), image_size=8), np.arange(TRAIN))
        expected = everything[12:][bundled.subset_rows("", TRAIN - 12, 5)]
        np.testing.assert_array_equal(read(split, np.arange(5))[0], expected)

    def test_refuses_to_hold_out_everything(self):
        for held_out in (-1, TRAIN):
            with self.assertRaisesRegex(ValueError, f"^`held_out` must be below the {TRAIN} .*held_out={held_out}$"):
                imagenet.load(folder(), held_out=held_out)


class FramingTest(parameterized.TestCase):
    def test_deepminds_crops_come_from_larger_images_of_the_whole_square(self):
        images = imagenet.load(folder(), image_size=40, framing="deepmind", enlarged=True)
        self.assertEqual((images.image_shape, images.train_image_shape), ((40, 40, 3), (48, 48, 3)))
        pixels, _ = read(images, np.arange(TRAIN))
        self.assertEqual(pixels.shape, (TRAIN, 48, 48, 3))
        for name, image in zip(names(images), pixels, strict=True):
            photograph = Image.open(io.BytesIO(_jpegs["whole"][name])).convert("RGB")
            side = min(photograph.size)
            left, top = (photograph.width - side) // 2, (photograph.height - side) // 2
            square = np.asarray(photograph.crop((left, top, left + side, top + side)), np.float32)
            expected = tf.image.resize(square, [48, 48], method="bicubic").numpy().clip(0, 255)
            # libjpeg may smooth the colors otherwise where only a part is decoded.
            self.assertLess(np.abs(image - expected).mean(), 1.0, name)
        (test, *_), *_ = images.test_batches(3)
        self.assertEqual(test.shape, (3, 40, 40, 3))

    def test_the_cubics_overshoot_stays_in_the_range(self):
        edge, buffer = np.zeros((16, 16, 3), np.uint8), io.BytesIO()
        edge[:, 15:] = 255
        Image.fromarray(edge).save(buffer, "JPEG", quality=100)
        image = imagenet.decode(tf.constant(buffer.getvalue()), 61, imagenet.FRAMINGS["deepmind"]).numpy()
        self.assertLess(image[:, :40].max(), 64)
        # A number above 255 would begin again at 0, at least the last ones, which are converted one by one.
        self.assertGreater(image[:, -2:].min(), 191)

    def test_a_stream_crops_them(self):
        images = imagenet.load(folder(), image_size=40, framing="deepmind", enlarged=True)
        augment = augmentation.RECIPES["deepmind"].make(3, 2, images.image_shape[:2])
        dataset = streaming.stream(images, sampling.Shuffled(TRAIN, 6, 0), 3, num_steps=2, augment=augment)
        self.assertEqual(dataset.element_spec[0].shape, (3, 2, 40, 40, 3))
        self.assertLen(list(dataset), 4)

    def test_framings_differ_in_their_fingerprint(self):
        made = [imagenet.load(folder(), framing=framing) for framing in imagenet.FRAMINGS]
        made.append(imagenet.load(folder(), framing="deepmind", enlarged=True))
        self.assertLen({images.fingerprint() for images in made}, 3)

    def test_refuses_an_unknown_one(self):
        with self.assertRaisesRegex(ValueError, "^`framing` must be one of tan, deepmind. Received: framing='own'$"):
            imagenet.load(folder(), framing="own")


class TFRecordTest(parameterized.TestCase):
    def test_holds_the_same_examples_by_number(self):
        there, here = (imagenet.load(folder("whole", kind), image_size=16) for kind in ("array_record", "tfrecord"))
        self.assertEqual((here.num_train_examples, len(here.test)), (TRAIN, VALIDATION))
        self.assertLen(here.train.files, 3)
        # The numbers are those of TensorFlow Datasets' own order.
        builder = tfds.builder_from_directory(os.path.join(folder("whole", "tfrecord"), "imagenet2012", "5.1.0"))
        decoders = {"image": tfds.decode.SkipDecoding()}
        in_order = builder.as_dataset(
            "train", decoders=decoders, read_config=tfds.ReadConfig(interleave_cycle_length=1)
        )
        self.assertEqual(names(here), [example["file_name"].numpy().decode() for example in in_order])
        by_name = dict(zip(names(there), read(there, np.arange(TRAIN))[0], strict=True))
        order = np.random.default_rng(0).permutation(TRAIN)
        images, labels = read(here, order)
        classes = dict(zip(ilsvrc.SYNSETS, ilsvrc.LABELS, strict=True))
        own = names(here)
        for row, image, label in zip(order, images, labels, strict=True):
            np.testing.assert_array_equal(image, by_name[own[row]])
            self.assertEqual(label, classes[own[row].split("_")[0]])

    def test_a_file_that_is_not_complete(self):
        copy = shutil.copytree(folder("whole", "tfrecord"), os.path.join(self.create_tempdir(), "copy"))
        path = sorted(pathlib.Path(copy, "imagenet2012", "5.1.0").glob("imagenet2012-train*"))[1]
        contents = path.read_bytes()
        first = 16 + int.from_bytes(contents[:8], "little")
        for damaged in (contents[:-1], contents[:100], contents[first:], contents + contents[:first], bytes(50)):
            path.write_bytes(damaged)
            with self.assertRaisesRegex(ValueError, f"^`data_dir` must hold complete TFRecord files, but {path} does"):
                imagenet.load(copy)

    def _written(self):
        path = pathlib.Path(self.create_tempdir(), "records")
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in (b"first", b"second"):
                writer.write(record)
        return path, tf_records.Source([(path, 2)])

    def test_threads_open_a_file_once(self):
        _, source = self._written()
        together, opened, really = threading.Barrier(8), [], os.open

        def slowly(*arguments):
            opened.append(arguments)
            time.sleep(0.2)
            return really(*arguments)

        def read(number):
            together.wait()
            return source[number % 2]

        with mock.patch.object(os, "open", slowly), concurrent.futures.ThreadPoolExecutor(8) as readers:
            self.assertEqual(list(readers.map(read, range(8))), [b"first", b"second"] * 4)
        self.assertLen(opened, 1)

    def test_a_record_cut_short_is_not_read(self):
        path, source = self._written()
        self.assertEqual([source[0], source[1]], [b"first", b"second"])
        os.truncate(path, path.stat().st_size - 6)
        self.assertEqual(source[0], b"first")
        with self.assertRaisesRegex(OSError, f"^{path} has become shorter$"):
            source[1]

    def test_a_file_cut_short_while_it_is_open(self):
        copy = shutil.copytree(folder("whole", "tfrecord"), os.path.join(self.create_tempdir(), "copy"))
        images = imagenet.load(copy, image_size=8)
        path = images.train.files[1].path
        os.truncate(path, path.stat().st_size // 2)
        dataset = tf.data.Dataset.from_tensors(np.arange(TRAIN)).map(images.train_reader())
        with self.assertRaises(tf.errors.UnknownError) as raised:
            list(dataset)
        self.assertRegex(array_records.failure(raised.exception), f"^`data_dir` can no longer be read: {path} has")


class CorruptTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.images = imagenet.load(folder("damaged"), image_size=16, skips_corrupt=True)
        self.names = names(self.images)
        self.lost = np.array([_jpegs["damaged"][name] == ilsvrc.NO_JPEG for name in self.names])
        self.assertEqual(self.lost.sum(), len(CORRUPT))

    def test_has_no_label_and_the_others_are_as_without_it(self):
        whole = imagenet.load(folder(), image_size=16)
        by_name = dict(zip(names(whole), read(whole, np.arange(TRAIN))[0], strict=True))
        images, labels = read(self.images, np.arange(TRAIN))
        np.testing.assert_array_equal(labels == -1, self.lost)
        for name, image, lost in zip(self.names, images, self.lost, strict=True):
            np.testing.assert_array_equal(image, 0 * image if lost else by_name[name])
        self.assertEqual(self.images.corrupt, {name for name, lost in zip(self.names, self.lost, strict=True) if lost})

    def test_a_batch_of_nothing_else(self):
        images, labels = read(self.images, np.repeat(np.flatnonzero(self.lost), 2))
        np.testing.assert_array_equal(labels, [-1] * 4)
        self.assertFalse(images.any())

    @parameterized.parameters(1, 4, 7)
    def test_becomes_padding_in_a_stream(self, size):
        scheme = sampling.Shuffled(TRAIN, 10, 3)
        batches = iter(streaming.stream(self.images, scheme, size, num_steps=3))
        present = 0
        for step in range(3):
            rows, mask = streaming.microbatches(scheme.indices(step), size)
            for own, kept in zip(rows, mask, strict=True):
                _, labels, found = next(batches)
                np.testing.assert_array_equal(found, kept & ~self.lost[own])
                self.assertTrue(np.all(labels >= 0))
                present += int(np.sum(found))
        self.assertEqual(present, TRAIN - len(CORRUPT))
        self.assertEqual(self.images.num_train_examples, TRAIN)

    def test_is_not_tested_on(self):
        held = imagenet.load(folder("damaged"), image_size=16, held_out=TRAIN - 1, skips_corrupt=True)
        masks = [mask for _, _, mask in held.test_batches(8)]
        np.testing.assert_array_equal(np.concatenate(masks)[: TRAIN - 1], ~self.lost[: TRAIN - 1])

    def test_lost_files_are_no_corrupt_images(self):
        copy = shutil.copytree(folder("damaged"), os.path.join(self.create_tempdir(), "copy"))
        images = imagenet.load(copy, image_size=8, skips_corrupt=True)
        images.train.files[0].path.unlink()
        dataset = tf.data.Dataset.from_tensors(np.arange(TRAIN)).map(images.train_reader())
        with self.assertRaises(tf.errors.UnknownError):
            list(dataset)


if __name__ == "__main__":
    absltest.main()
