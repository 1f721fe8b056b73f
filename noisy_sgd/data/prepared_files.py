"""Finds `imagenet2012` as TensorFlow Datasets prepared it, and says in one sentence what is missing.

    folder = prepared_files.newest("DATA")          # "DATA/imagenet2012/5.1.0"
    records = prepared_files.records(tfds.builder_from_directory(folder), "train", "array_record", "DATA")

Covered by tests/data/imagenet_test.py.
"""

import json
import pathlib
import re

from noisy_sgd.data import array_records, tf_records

NAME = "imagenet2012"

# Files that a process keeps open beside the records: libraries, logs, events, checkpoints.
_OTHER_OPEN_FILES = 128


def newest(data_dir: str | pathlib.Path | None) -> str:
    """The folder of the newest version in `data_dir`.

    Raises:
        ValueError: if there is none, or it is named after another version than it holds.
    """
    if data_dir is None:
        raise ValueError(
            f"`data_dir` must name the folder that holds {NAME}; {command('FOLDER')}. Received: data_dir=None"
        )
    if "://" in str(data_dir):
        raise ValueError(
            f"`data_dir` must be a folder of this machine, because {NAME} is read image by image; copy it to a disk by "
            f"`gcloud storage cp -r`, or mount the bucket by gcsfuse. Received: data_dir={str(data_dir)!r}"
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
            f"`data_dir` must hold {NAME}, prepared, and does not; {command(data_dir)}. "
            f"Received: data_dir={str(data_dir)!r}"
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


def command(data_dir: str | pathlib.Path) -> str:
    """How to prepare the set, without TensorFlow Datasets' command line, which needs Apache Beam for no reason."""
    return (
        "put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar in ARCHIVES and prepare it by: "
        f"python -c \"import tensorflow_datasets as tfds; tfds.builder('{NAME}', data_dir='{data_dir}', "
        "file_format='array_record').download_and_prepare("
        "download_config=tfds.download.DownloadConfig(manual_dir='ARCHIVES'))\""
    )


def records(builder, split: str, file_format: str, data_dir) -> array_records.Records:
    """A split's records, of a builder whose file format is "array_record" or "tfrecord".

    Raises:
        ValueError: if the split or one of its files is missing, or a TFRecord file is not complete.
    """
    if split not in builder.info.splits:
        raise ValueError(
            f"`data_dir` must hold {NAME} with its {split} split; prepare it from both archives. "
            f"Received: data_dir={str(data_dir)!r}"
        )
    paths = [pathlib.Path(path) for path in builder.info.splits[split].filepaths]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"`data_dir` must hold {NAME} as a whole, but lacks {len(missing)} of the {len(paths)} files of its "
            f"{split} split, the first of them {missing[0]}. Received: data_dir={str(data_dir)!r}"
        )
    examples = builder.info.splits[split].shard_lengths
    if file_format == "array_record":
        import tensorflow_datasets as tfds  # Takes a second to import.

        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        source = builder.as_data_source(split, deserialize_method=raw, file_format=file_format)
    else:
        source = tf_records.Source(list(zip(paths, examples, strict=True)))
    files = [
        array_records.RecordFile(path=path, size=path.stat().st_size, examples=count)
        for path, count in zip(paths, examples, strict=True)
    ]
    return array_records.Records(source=source, files=tuple(files))


def check_open_files(count: int) -> None:
    """Refuses more record files than the process may open: each stays open, and a run would fail in the middle."""
    import resource  # Not on Windows, where the other image sets work.

    needed, allowed = count + _OTHER_OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed not in (resource.RLIM_INFINITY, -1) and allowed < needed:
        raise ValueError(
            f"`data_dir` holds {NAME} in {count} files, which stay open while they are read, and this process may open "
            f"{allowed} files in all; run `ulimit -n {needed}` before it"
        )
