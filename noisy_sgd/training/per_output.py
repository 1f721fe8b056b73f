"""Finds the entry of each model output in an argument that Keras takes once, or once per output.

Losses, loss weights, targets and sample weights may be one value for all outputs, a nest like the outputs, a flat list
in their order, or a dict by the outputs' names.

    per_output.entries("loss", {"p": "mse"}, {"p": ..., "q": ...})    # ["mse", None]
    per_output.entries("loss", "mse", [..., ...])                     # ["mse", "mse"]
"""

import keras


def without_none(values):
    """The same nest with an empty tuple for every None, which `tf.nest` then passes over."""
    return keras.tree.map_structure(lambda value: () if value is None else value, values)


def entries(argument, values, predictions, names=(), needed=()):
    """The entry of `values` for each output.

    Args:
        argument: the name of `values` in errors.
        values: a nest; None, an empty tuple or a missing key of a dict stands for no entry.
        predictions: the model's outputs, any nest.
        names: the names of the flattened outputs. Defaults to none.
        needed: indices of the flattened outputs that a shorter list, with entries for these outputs alone, is for.
            Defaults to none.

    Returns:
        A list in the order of the flattened outputs, with None for no entry.

    Raises:
        ValueError: for entries without an output.
    """
    count = len(keras.tree.flatten(predictions))
    places = keras.tree.pack_sequence_as(predictions, list(range(count)))
    if (
        _is_list(values)
        and len(values) == len(needed) < count
        and not (_is_list(places) and len(places) == len(values))
    ):
        places = list(needed)
    by_output = [None] * count
    try:
        for place, value in _placed(values, places, names):
            by_output[place] = value
    except (KeyError, ValueError):
        raise ValueError(
            f"`{argument}` must be a single one, or have the structure of the outputs, {_structure(predictions)}"
            f"{f', with the names {list(names)}' if names else ''}. Received: {argument}={_structure(values)}"
        ) from None
    return by_output


def targets(y, predictions, names, needed):
    """The targets of each output, None for outputs without targets; arguments as for `entries`.

    Raises:
        ValueError: for targets without an output, and for missing targets.
    """
    if keras.tree.is_nested(y) or len(needed) == 1:
        by_output = entries("y", y if keras.tree.is_nested(y) else [y], predictions, names, needed)
    else:
        # One array for all outputs is valid as weights, but not as targets.
        by_output = [None] * len(keras.tree.flatten(predictions))
    missing = [names[place] if names else place for place in needed if by_output[place] is None]
    if missing:
        raise ValueError(
            "`y` must hold targets for every output that has a loss. "
            f"Received: y={_structure(y)}, without targets for outputs {missing}"
        )
    return by_output


def _placed(values, places, names):
    """Pairs of the index of an output and its value."""
    if values is None or (isinstance(values, tuple) and not values):
        return []
    if not keras.tree.is_nested(values):
        return [(place, values) for place in keras.tree.flatten(places)]
    if isinstance(values, dict):
        if isinstance(places, dict) and set(values) <= set(places):
            return [pair for key, value in values.items() for pair in _placed(value, places[key], ())]
        named = dict(zip(names, keras.tree.flatten(places), strict=True))
        return [(named[name], value) for name, value in values.items()]
    if _is_list(places) and len(values) == len(places):
        return [pair for value, place in zip(values, places, strict=True) for pair in _placed(value, place, ())]
    return list(zip(keras.tree.flatten(places), keras.tree.flatten(values), strict=True))


def _is_list(values):
    return isinstance(values, list | tuple)


def _structure(values):
    return keras.tree.map_structure(lambda _: "*", values)
