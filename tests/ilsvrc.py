"""Hand-made archives of ImageNet, from windows of the two photographs that scikit-learn contains.

TensorFlow Datasets' own `imagenet2012` builder prepares them like those of image-net.org:

    jpegs = ilsvrc.write("ARCHIVES", per_synset=10)     # {"n01440764_0.JPEG": bytes, ...}
    ilsvrc.prepare("DATA", "ARCHIVES", file_format="tfrecord")
"""

import io
import os
import pathlib
import tarfile
from collections.abc import Callable

import tensorflow_datasets as tfds
from PIL import Image
from sklearn import datasets

# Width and height: landscape, portrait, square, one to enlarge, one with a side that 8 does not divide.
SIZES = ((300, 200), (150, 260), (128, 128), (20, 30), (101, 77))
SYNSETS = ("n01440764", "n01443537", "n15075141")
LABELS = (0, 1, 999)
NO_JPEG = b"\xff\xd8\xff junk"


def photograph(number: int) -> bytes:
    """A JPEG of one of the photographs, a window that depends on the number; every seventh is gray."""
    return _window(number, number % 2, gray=number % 7 == 3)


def of_class(number: int) -> Callable[[int], bytes]:
    """Photographs that can be told apart: of one picture or the other, and of the first upside down."""
    return lambda row: _window(5 * row, number % 2, turned=number == 2)


def _window(number, picture, *, gray=False, turned=False):
    image = Image.fromarray(datasets.load_sample_images().images[picture])
    width, height = SIZES[number % len(SIZES)]
    left, top = 11 * number % (image.width - width), 7 * number % (image.height - height)
    window = image.crop((left, top, left + width, top + height))
    if turned:
        window = window.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    buffer = io.BytesIO()
    (window.convert("L") if gray else window).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def archive(contents: dict[str, bytes]) -> bytes:
    """A tar of files: name -> bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write(
    folder: str,
    *,
    per_synset: int = 10,
    validation: int = 7,
    train: bool = True,
    corrupt: tuple[int, ...] = (),
    absent: tuple[int, ...] = (),
    by_class: bool = False,
) -> dict[str, bytes]:
    """The two archives as image-net.org hands them out; returns the JPEGs by their names.

    Args:
        folder: made by this function.
        per_synset: training images of each synset.
        validation: validation images.
        train: whether there is an archive of training images.
        corrupt: the numbers of the training images, over all synsets, that are no JPEG.
        absent: the numbers of those that the archive lacks.
        by_class: whether the images of the synsets can be told apart.
    """
    os.makedirs(folder)
    jpegs, parts = {}, {}
    for index, synset in enumerate(SYNSETS):
        made = of_class(index) if by_class else photograph
        numbers = range(index * per_synset, (index + 1) * per_synset)
        part = {
            f"{synset}_{row}.JPEG": NO_JPEG if number in corrupt else made(number)
            for row, number in enumerate(numbers)
            if number not in absent
        }
        parts[f"{synset}.tar"] = archive(part)
        jpegs.update(part)
    if train:
        pathlib.Path(folder, "ILSVRC2012_img_train.tar").write_bytes(archive(parts))
    made = {f"ILSVRC2012_val_{row + 1:08d}.JPEG": photograph(50 + row) for row in range(validation)}
    pathlib.Path(folder, "ILSVRC2012_img_val.tar").write_bytes(archive(made))
    return jpegs | made


def prepare(data_dir: str, archives: str, file_format: str = "array_record", num_shards: int | None = None) -> str:
    """What a user runs once."""
    tfds.disable_progress_bar()
    builder = tfds.builder("imagenet2012", data_dir=data_dir, file_format=file_format)
    settings = tfds.download.DownloadConfig(manual_dir=archives, num_shards=num_shards)
    builder.download_and_prepare(download_config=settings)
    return data_dir
