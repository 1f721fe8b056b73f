"""Remarks that are no errors: each is logged once per model, through absl.

    remarks.once(model, "private", "PrivateModel %r trains without privacy", model.name)

Covered by tests/training/training_arguments_test.py.
"""

import weakref

import keras
from absl import logging

_MADE: "weakref.WeakKeyDictionary[keras.Model, set[str]]" = weakref.WeakKeyDictionary()


def once(model: keras.Model, about: str, message: str, *values) -> None:
    """Logs a warning, unless the model has had one about the same.

    Args:
        model: what it is about.
        about: a word for the kind of remark.
        message: a format.
        *values: what the format shows.
    """
    made = _MADE.setdefault(model, set())
    if about not in made:
        made.add(about)
        logging.warning(message, *values)
