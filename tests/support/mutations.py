"""Random damage to the bytes of files, and to the values of JSON and YAML."""

import json
import random

# Values that readers do not expect.
VALUES = (
    None, True, 0, -1, 2**63, 10**400, 1e308, float("inf"), float("nan"), "", "x" * 5000,
    "\ud800", "\0", "../..", "/etc", "<script>", [], {}, [[]], {"": None}, [1, "a", None],
)  # fmt: skip
BYTES = (
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\n",
    b",",
    b'"',
    b"[",
    b"{",
    b"&a",
    b"*a",
    b"9" * 500,
)


def mutate(content, chance):
    """`content` after one to four kinds of damage, drawn from `chance`."""
    for _ in range(chance.randint(1, 4)):
        content = chance.choice(_DAMAGES)(content, chance)
    return content


def mutate_values(content, chance):
    """A JSON text with one to three values replaced, moved, nested or removed, as bytes."""
    value = json.loads(content)
    for _ in range(chance.randint(1, 3)):
        value = _replace(value, chance)
    return json.dumps(value).encode()


def _copy(value):
    """A copy; `copy.deepcopy` takes three frames a level, too many for the deepest values."""
    return json.loads(json.dumps(value))


def _replace(value, chance):
    if isinstance(value, dict | list) and value and chance.random() < 0.85:
        key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
        kind = chance.random()
        if kind < 0.1:
            del value[key]
        elif kind < 0.2 and isinstance(value, list):
            value.append(_copy(value[key]))
        elif kind < 0.3 and isinstance(value, dict):
            value[chance.choice(["", "\ud800", "a" * 300, "../x", "0"])] = _copy(value[key])
        else:
            value[key] = _replace(value[key], chance)
        return value
    if chance.random() < 0.15:
        for _ in range(chance.choice([2, 60, 200])):
            value = [value] if chance.random() < 0.5 else {"a": value}
        return value
    return _copy(chance.choice(VALUES))


def _flip(content, chance):
    damaged = bytearray(content or b"x")
    for _ in range(chance.choice([1, 1, 8, 64])):
        # Headers decide more than data.
        end = len(damaged) if chance.random() < 0.5 else min(64, len(damaged))
        damaged[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _truncate(content, chance):
    return content[: chance.randrange(len(content) + 1)]


def _insert(content, chance):
    position = chance.randrange(len(content) + 1)
    inserted = chance.choice(BYTES) * chance.choice([1, 1, 3, 200])
    return content[:position] + inserted + content[position:]


def _splice(content, chance):
    start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    position = chance.randrange(len(content) + 1)
    return content[:position] + content[start:end] + content[position:]


def _remove(content, chance):
    start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[min(end, start + 200) :]


def _number(content, chance):
    """A number in a text replaced by another, or bytes by the largest."""
    digits = [index for index, byte in enumerate(content) if 48 <= byte <= 57]
    if not digits:
        return _flip(content, chance)
    index = chance.choice(digits)
    number = chance.choice([b"-1", b"0", b"99999999999999999999", b"1e999", b"NaN", b"4294967295"])
    return content[:index] + number + content[index + 1 :]


_DAMAGES = (_flip, _truncate, _insert, _splice, _remove, _number)


def generator(name, seed):
    return random.Random(f"{name} {seed}")
