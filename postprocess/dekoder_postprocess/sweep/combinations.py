# SPDX-License-Identifier: Apache-2.0
"""Which combinations of values there are where parameters have conditions: found one by one, without a look at those that differ
only in what is not in force, of which there may be more than can be counted."""
from __future__ import annotations

from .parameters import in_force


def combinations(parameters):
    """Settings of all combinations of the parameters' values that differ; the last parameter changes first."""
    values = {parameter.key: list(parameter.grid()) for parameter in parameters}
    asks = _asks(parameters, values)

    def walk(index, room, needed):
        """`room`: key -> places among the values that may still be taken, as bits; one of them where it has been. `needed`: keys of what must
        be in force. A parameter that is not is held at its first value, so that equal settings come once, and any other value
        asks for all that puts it in force: each branch that is entered has an end."""
        if index == len(parameters):
            yield in_force(parameters, {key: values[key][places.bit_length() - 1] for key, places in room.items()})
            return
        key = parameters[index].key
        for place in range(len(values[key])):
            if place == 1:
                room, needed = dict(room), set(needed)
                if _need(asks, room, needed, key) is not None:
                    return
            if room[key] >> place & 1:
                yield from walk(index + 1, {**room, key: 1 << place}, needed)

    yield from walk(0, _all_of(values), set())


def never_in_force(parameters) -> list:
    """[(key of a parameter whose conditions cannot hold all at once, key of one that has no value for them)]"""
    compared = {}
    for parameter in parameters:
        for condition in parameter.where:
            compared.setdefault(condition.key, []).append(condition.value)
    values = {parameter.key: parameter.examples(compared.get(parameter.key, ())) for parameter in parameters}
    asks = _asks(parameters, values)
    found = [(parameter.key, _need(asks, _all_of(values), set(), parameter.key)) for parameter in parameters if parameter.where]
    return [(key, without) for key, without in found if without is not None]


def _asks(parameters, values):
    """key -> [(key of another parameter, places among its values with which the condition on it holds, as bits)]"""
    def places(condition):
        return sum(1 << place for place, value in enumerate(values.get(condition.key, ())) if condition.holds({condition.key: value}))

    return {parameter.key: [(condition.key, places(condition)) for condition in parameter.where] for parameter in parameters}


def _all_of(values):
    return {key: (1 << len(of_key)) - 1 for key, of_key in values.items()}


def _need(asks, room, needed, key):
    """Takes from `room` what would leave the parameter `key` out of force; returns the key of a parameter that has no value then,
    None where all have."""
    left = [] if key in needed else [key]
    needed.add(key)
    while left:
        for other, places in asks[left.pop()]:
            room[other] = room.get(other, 0) & places
            if not room[other]:
                return other
            if other not in needed:
                needed.add(other)
                left.append(other)
    return None
