"""A small `imagenet2012` that TensorFlow Datasets itself prepared: what is read of it, and how it fails."""

import contextlib
import io
import json
import os
import pathlib
import re
import resource
import shutil
import socket
import tempfile
from unittest import mock

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl.testing import absltest, parameterized
from PIL import Image

from noisy_sgd import sampling
from noisy_sgd.data import array_records, augmentation, bundled, imagenet, label_noise, prepared_files, streaming
from tests import ilsvrc

TRAIN, VALIDATION = 30, 7

_folder = tempfile.TemporaryDirectory()
_jpegs = {}


def setUpModule():
    archives = os.path.join(_folder.name, "archives")
    _jpegs.update(ilsvrc.write(archives, per_synset=TRAIN // 3, validation=VALIDATION))
    ilsvrc.prepare(prepared(), archives, num_shards=3)


def tearDownModule():
    _folder.cleanup()


def prepared():
    """A `data_dir` with three files a split; leave it as it is."""
    return os.path.join(_folder.name, "data")


def expected(name, size):
    """What Pillow makes of a JPEG: the square of 7/8 of the shorter side from the center, resized."""
    image = Image.open(io.BytesIO(_jpegs[name])).convert("RGB")
    side = min(image.size) * 7 // 8
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))


def file_names(split):
    """The archives' names of a split's examples, in the order of their numbers."""
    builder = tfds.builder("imagenet2012", data_dir=prepared())
    decoders = {"image": tfds.decode.SkipDecoding()}
    return [example["file_name"].decode() for example in builder.as_data_source(split, decoders=decoders)]


def mapped(images, indices, calls=None):
    """The training examples of [batches, m] numbers, as a dataset reads them."""
    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(indices, np.int64))
    return dataset.map(images.train_reader(), num_parallel_calls=calls)


class ReadTest(parameterized.TestCase):
    def test_says_what_it_holds(self):
        images = imagenet.load(prepared(), image_size=48)
        self.assertEqual((images.name, images.num_classes), ("imagenet2012/5.1.0", 1000))
        self.assertEqual((images.image_shape, images.pixel_range), ((48, 48, 3), (0.0, 255.0)))
        self.assertEqual((images.num_train_examples, len(images.test)), (TRAIN, VALIDATION))
        self.assertEqual(imagenet.load(prepared()).image_shape, (224, 224, 3))
        # The numbers of torchvision and others, in levels of 0 to 255.
        published = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
        np.testing.assert_allclose(images.normalization, published, rtol=1e-12)

    @parameterized.parameters(32, 80)
    def test_every_number_is_one_image_of_the_archive_and_its_label(self, size):
        names = file_names("train")
        self.assertLen(set(names), TRAIN)
        ((images, labels),) = mapped(imagenet.load(prepared(), image_size=size), [range(TRAIN)])
        self.assertEqual((images.dtype, labels.dtype), (tf.uint8, tf.int32))
        classes = dict(zip(ilsvrc.SYNSETS, ilsvrc.LABELS, strict=True))
        np.testing.assert_array_equal(labels, [classes[name.split("_")[0]] for name in names])
        differences = [
            image.astype(int) - expected(name, size) for name, image in zip(names, images.numpy(), strict=True)
        ]
        for name, difference in zip(names, differences, strict=True):
            # Pillow rounds to whole levels between the two directions, and libjpeg may smooth its colors otherwise.
            self.assertLess(np.abs(difference).mean(), 1.0, name)
            self.assertLessEqual(np.quantile(np.abs(difference), 0.99), 6, name)
        # Levels that were cut off and not rounded would lie half a level below.
        self.assertLess(np.abs(np.mean(differences)), 0.1)

    def test_a_dataset_knows_the_shapes_and_reads_in_any_order(self):
        images = imagenet.load(prepared(), image_size=16)
        ((everything, labels),) = mapped(images, [range(TRAIN)])
        indices = np.random.default_rng(0).integers(0, TRAIN, (20, 4))
        for calls in (None, 4):
            dataset = mapped(images, indices, calls)
            self.assertEqual([spec.shape.as_list() for spec in dataset.element_spec], [[4, 16, 16, 3], [4]])
            for rows, (some, their_labels) in zip(indices, dataset, strict=True):
                np.testing.assert_array_equal(some, everything.numpy()[rows])
                np.testing.assert_array_equal(their_labels, labels.numpy()[rows])

    def test_streams_as_images_in_memory_do(self):
        images = imagenet.load(prepared(), image_size=16)
        ((everything, labels),) = mapped(images, [range(TRAIN)])
        in_memory = bundled.ImageSet(
            name="the same",
            train_images=everything.numpy(),
            train_labels=labels.numpy(),
            test_images=everything.numpy()[:1],
            test_labels=labels.numpy()[:1],
            num_classes=1000,
            pixel_range=(0.0, 255.0),
        )
        sampler = sampling.Poisson(TRAIN, 6, seed=2)
        settings = {"num_steps": 6, "multiple_of": 2, "augment": augmentation.make(seed=3)}
        for microbatches in zip(
            *(streaming.stream(one, sampler, 4, **settings) for one in (images, in_memory)), strict=True
        ):
            for ours, theirs in zip(*microbatches, strict=True):
                np.testing.assert_array_equal(ours, theirs)

    @parameterized.parameters(1, 3, 7, 500)
    def test_batches_hold_every_test_image_once(self, size):
        images = imagenet.load(prepared(), image_size=24)
        batches = images.test_batches(size)
        self.assertIs(batches.options().autotune.enabled, False)
        width = min(size, VALIDATION)
        names = file_names("validation")
        published = tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split()
        to_number = tfds.builder("imagenet2012", data_dir=prepared()).info.features["label"].str2int
        first = [to_number(published[int(name[-10:-5]) - 1]) for name in names]
        for _ in range(2):
            parts = [np.concatenate(part) for part in zip(*batches.as_numpy_iterator(), strict=True)]
            self.assertEqual([part.dtype for part in parts], [np.uint8, np.int32, bool])
            np.testing.assert_array_equal(parts[2], np.arange(len(parts[2])) < VALIDATION)
            self.assertEqual(len(parts[2]) % width, 0)
            kept = [part[parts[2]] for part in parts]
            np.testing.assert_array_equal(kept[1], first)
            for name, image in zip(names, kept[0], strict=True):
                self.assertLess(np.abs(image.astype(int) - expected(name, 24)).mean(), 1.0)
        self.assertEqual(batches.element_spec[0].shape, (width, 24, 24, 3))

    def test_keeps_the_first_of_a_permutation(self):
        everything, small, large, other = (
            imagenet.load(prepared(), image_size=8, train_size=size, subset_seed=seed)
            for size, seed in ((None, 0), (5, 0), (12, 0), (5, 1))
        )
        self.assertEqual([len(images.train) for images in (everything, small, large)], [TRAIN, 5, 12])
        self.assertLen(small.test, VALIDATION)
        ((all_images, _),) = mapped(everything, [range(TRAIN)])
        ((few, _),) = mapped(small, [range(5)])
        ((more, _),) = mapped(large, [range(12)])
        np.testing.assert_array_equal(few, more[:5])
        np.testing.assert_array_equal(few, all_images.numpy()[bundled.subset_rows("", TRAIN, 5)])
        self.assertLen({images.fingerprint() for images in (everything, small, large, other)}, 4)

    def test_fingerprint_follows_the_files(self):
        first = imagenet.load(prepared(), image_size=8)
        copy = shutil.copytree(prepared(), os.path.join(self.create_tempdir(), "copy"))
        self.assertEqual(imagenet.load(copy, image_size=8).fingerprint(), first.fingerprint())
        self.assertNotEqual(imagenet.load(copy, image_size=9).fingerprint(), first.fingerprint())
        # The same size, another byte near either end.
        for position in (100, -1000):
            path = imagenet.load(copy).train.files[1].path
            contents = bytearray(path.read_bytes())
            contents[position] ^= 1
            path.write_bytes(contents)
            self.assertNotEqual(imagenet.load(copy, image_size=8).fingerprint(), first.fingerprint())
            contents[position] ^= 1
            path.write_bytes(contents)

    def test_reads_without_a_network(self):
        def refuse(*_, **__):
            raise AssertionError("the network was asked")

        with contextlib.ExitStack() as stack:
            for name in ("connect", "connect_ex"):
                stack.enter_context(mock.patch.object(socket.socket, name, refuse))
            stack.enter_context(mock.patch.object(socket, "getaddrinfo", refuse))
            self.assertLen(list(mapped(imagenet.load(prepared(), image_size=8), [[0, 1], [2, 3]])), 2)

    def test_labels_in_files_are_not_replaced(self):
        with self.assertRaisesRegex(ValueError, "^`label_noise` .* in memory; leave it out. Received: label_noise=0.5"):
            label_noise.replace(imagenet.load(prepared()), 0.5)


class LoadTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path

    def assert_refused(self, data_dir, pattern, **arguments):
        with self.assertRaisesRegex(ValueError, pattern) as raised:
            imagenet.load(data_dir, **arguments)
        self.assertNotIn("\n", str(raised.exception))
        return str(raised.exception)

    def test_the_command_in_the_error_prepares_it(self):
        data_dir = os.path.join(self.folder, "new")
        message = self.assert_refused(
            data_dir, f"^`data_dir` must hold imagenet2012, prepared, and does not; .*data_dir='{data_dir}'$"
        )
        command = re.search('python -c "(.*)"', message)[1]
        archives = os.path.join(_folder.name, "archives")
        exec(command.replace("ARCHIVES", archives))
        self.assertEqual(imagenet.load(data_dir).num_train_examples, TRAIN)

    def test_nothing_named(self):
        self.assert_refused(None, "^`data_dir` must name the folder that holds imagenet2012; .*prepare it by: python")

    def test_the_newest_version_is_taken(self):
        for version in ("5.9.0", "5.10.0", "5.1.0"):
            folder = pathlib.Path(self.folder, "imagenet2012", version)
            folder.mkdir(parents=True)
            (folder / "dataset_info.json").write_text(json.dumps({"version": version}))
        self.assertEqual(prepared_files.newest(self.folder), os.path.join(self.folder, "imagenet2012", "5.10.0"))

    def test_an_interrupted_preparation_is_none(self):
        source = os.path.join(prepared(), "imagenet2012", "5.1.0")
        shutil.copytree(source, os.path.join(self.folder, "imagenet2012", "incomplete.ABCDEF_5.1.0"))
        self.assert_refused(self.folder, "^`data_dir` must hold imagenet2012, prepared, and does not; ")

    @parameterized.parameters(
        ("5.0.0", "holds version 5.1.0 in .*5.0.0; rename the folder to 5.1.0"), ("v5", "holds .*/v5;")
    )
    def test_a_renamed_version(self, folder, message):
        source = os.path.join(prepared(), "imagenet2012", "5.1.0")
        shutil.copytree(source, os.path.join(self.folder, "imagenet2012", folder))
        self.assert_refused(self.folder, f"^`data_dir` must hold imagenet2012 in a folder named after its .*{message}")

    def test_another_format_only(self):
        copy = shutil.copytree(prepared(), os.path.join(self.folder, "copy"))
        path = pathlib.Path(copy, "imagenet2012", "5.1.0", "dataset_info.json")
        path.write_text(path.read_text().replace('"array_record"', '"parquet"').replace("array_record", "parquet"))
        pattern = (
            "^`data_dir` must hold imagenet2012 as array_record or tfrecord, but holds it as parquet; "
            ".*data_dir='ANOTHER_FOLDER', file_format='array_record'"
        )
        self.assert_refused(copy, pattern)

    def test_a_bucket(self):
        pattern = "^`data_dir` must be a folder of this machine.*gcsfuse. Received: data_dir='gs://bucket/data'$"
        self.assert_refused("gs://bucket/data", pattern)

    def test_a_split_is_missing(self):
        ilsvrc.write(os.path.join(self.folder, "archives"), train=False)
        ilsvrc.prepare(self.folder, os.path.join(self.folder, "archives"))
        self.assert_refused(self.folder, "^`data_dir` must hold imagenet2012 with its train split")

    def test_files_are_missing(self):
        copy = shutil.copytree(prepared(), os.path.join(self.folder, "copy"))
        paths = [file.path for file in imagenet.load(copy).train.files]
        paths[1].unlink()
        paths[2].unlink()
        paths[2].mkdir()
        self.assert_refused(
            copy, f"^`data_dir` must .* lacks 2 of the 3 files of its train .*, the first of them {paths[1]}."
        )

    def test_a_damaged_description(self):
        copy = shutil.copytree(prepared(), os.path.join(self.folder, "copy"))
        path = pathlib.Path(copy, "imagenet2012", "5.1.0", "dataset_info.json")
        contents = path.read_text()
        lengths = json.loads(contents)["splits"][0]["shardLengths"]
        self.assertLen(lengths, 3)
        for damaged in ("", contents[:200], "[]"):
            path.write_text(damaged)
            self.assert_refused(
                copy, "^`data_dir` must hold imagenet2012 with a description that can be read: .*5.1.0 "
            )

    def test_more_files_than_a_process_may_open(self):
        with mock.patch.object(resource, "getrlimit", return_value=(130, 4096)):
            self.assert_refused(
                prepared(), "^`data_dir` .* in 6 files, .* may open 130 files in all; run `ulimit -n 134` "
            )
        for allowed in (134, resource.RLIM_INFINITY):
            with mock.patch.object(resource, "getrlimit", return_value=(allowed, 4096)):
                imagenet.load(prepared())

    @parameterized.parameters(0, -1, TRAIN + 1)
    def test_sizes_that_cannot_be(self, size):
        self.assert_refused(
            prepared(), f"^`train_size` .* the {TRAIN} training images of imagenet2012.", train_size=size
        )
        if size <= 0:
            pattern = f"^`image_size` must be at least 1. Received: image_size={size}$"
            self.assert_refused(prepared(), pattern, image_size=size)
            with self.assertRaisesRegex(ValueError, f"^`size` must be at least 1. Received: size={size}$"):
                imagenet.load(prepared()).test_batches(size)


class LostFileTest(parameterized.TestCase):
    """Every failure arrives in a compiled loop over a distributed dataset, as in training."""

    def setUp(self):
        super().setUp()
        self.data_dir = shutil.copytree(prepared(), os.path.join(self.create_tempdir(), "data"))
        self.images = imagenet.load(self.data_dir, image_size=8)
        self.path = self.images.train.files[1].path

    def train(self, strategy=None, first=None):
        """Iterates over all examples; calls `first` when some have been read of every file."""
        strategy = strategy or tf.distribute.get_strategy()
        rows = np.concatenate([np.arange(0, TRAIN, 5), np.arange(TRAIN)] * 2)
        # Read far enough apart that a prefetching thread has not done it all before `first` is called.
        dataset = mapped(self.images, np.repeat(rows.reshape(-1, 2), 3, 0), tf.data.AUTOTUNE).prefetch(2)
        iterator = iter(strategy.distribute_datasets_from_function(lambda _: dataset))

        @tf.function(autograph=False)
        def steps(count):
            def body(step):
                strategy.run(lambda images, labels: tf.reduce_sum(labels), args=tuple(next(iterator)))
                return (step + 1,)

            return tf.while_loop(lambda step: step < count, body, (0,), parallel_iterations=1)

        steps(tf.constant(9))
        if first:
            first()
        steps(tf.constant(len(rows) * 3 // 2 - 9))

    def assert_lost(self, pattern, **arguments):
        with self.assertRaises(tf.errors.UnknownError) as raised:
            self.train(**arguments)
        sentence = array_records.failure(raised.exception)
        self.assertRegex(sentence, f"^{pattern}$")
        self.assertEqual(sentence.count("data_dir"), 1)

    def test_nothing_fails_when_nothing_is_lost(self):
        self.train()

    @parameterized.parameters("default", "mirrored")
    def test_a_file_that_is_gone(self, strategy):
        self.path.unlink()
        strategy = tf.distribute.MirroredStrategy(["CPU:0"]) if strategy == "mirrored" else None
        pattern = f"`data_dir` can no longer be read: {self.path} no longer exists; put it back"
        self.assert_lost(pattern, strategy=strategy)

    def test_a_file_cut_short_before_it_is_opened(self):
        size = self.path.stat().st_size
        os.truncate(self.path, size // 2)
        self.assert_lost(f"`data_dir` .*: {self.path} has {size // 2} bytes now and had {size}; put the original back")

    def test_a_file_cut_short_while_it_is_open(self):
        size = self.path.stat().st_size
        pattern = f"`data_dir` .*: {self.path} has 70000 bytes now and had {size}; put the original back"
        self.assert_lost(pattern, first=lambda: os.truncate(self.path, 70000))

    def test_a_file_of_zeros(self):
        self.path.write_bytes(bytes(self.path.stat().st_size))
        self.assert_lost(rf"`data_dir` .*: {self.path} cannot be read \(.*\); repair or replace it")

    def test_a_file_cut_short_before_the_set_is_loaded(self):
        os.truncate(self.path, self.path.stat().st_size // 2)
        self.images = imagenet.load(self.data_dir, image_size=8)
        self.assert_lost(rf"`data_dir` .*: {self.path} cannot be read \(.*\); repair or replace it")

    def test_what_is_put_back_can_be_loaded_and_read(self):
        contents = self.path.read_bytes()
        self.path.unlink()
        with self.assertRaises(tf.errors.UnknownError):
            self.train()
        self.path.write_bytes(contents)
        self.images = imagenet.load(self.data_dir, image_size=8)
        self.train()

    def test_an_image_that_is_none(self):
        folder = self.create_tempdir().full_path
        ilsvrc.write(os.path.join(folder, "archives"), corrupt=tuple(range(TRAIN)))
        ilsvrc.prepare(folder, os.path.join(folder, "archives"))
        self.images = imagenet.load(folder, image_size=8)
        self.assertIsNone(self.images.fault(tf.errors.UnknownError(None, None, "a worker is gone")))
        with self.assertRaises(tf.errors.InvalidArgumentError) as raised:
            self.train()
        found = re.fullmatch(
            "`data_dir` holds an image that is not a complete JPEG: record ([0-9]+) of (.*); prepare the data set "
            "again, or set `corrupt_images` to skip",
            self.images.fault(raised.exception),
        )
        file = next(file for file in self.images.train.files if str(file.path) == found[2])
        self.assertLess(int(found[1]), file.examples)
        sentence = "`data_dir` holds an image that is not a complete JPEG; prepare the data set again, or set"
        self.assertStartsWith(array_records.failure(raised.exception), sentence)

    def test_other_errors_are_not_about_files(self):
        self.assertIsNone(array_records.failure(tf.errors.UnknownError(None, None, "a worker is gone")))
        self.assertIsNone(array_records.failure(ValueError("`data_dir` holds no prepared imagenet2012")))


if __name__ == "__main__":
    absltest.main()
