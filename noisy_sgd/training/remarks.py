"""Logs warnings through absl, each once per model.

    remarks.once(model, "private", "PrivateModel %r trains without privacy", model.name)

Covered by tests/training/training_arguments_test.py.
"""

import weakref

import keras
from absl import logging

_LOGGED: "weakref.WeakKeyDictionary[keras.Model, set[str]]" = weakref.WeakKeyDictionary()


def once(model: keras.Model, about: str, message: str, *values) -> None:
    """Logs a warning, unless one about the same subject was logged for the model before.

    Args:
        model: the model that the warning is about.
        about: a word for the subject.
        message: a format string.
        *values: the values of the format string.
    """
    logged = _LOGGED.setdefault(model, set())
    if about not in logged:
        logged.add(about)
        logging.warning(message, *values)
