"""Seeds as DomainBed derives them: md5 of the text of the arguments."""

import hashlib

_PLAIN = (int, str, float, bool, type(None))


def seed_hash(*args: object) -> int:
    """Hash plain Python values to a seed in [0, 2**31), bit for bit as DomainBed's ``seed_hash``.

    Raises TypeError for anything but ints, floats, strings, booleans, None, and lists or tuples of
    these: the text of a NumPy scalar differs between NumPy 1 and 2, and so would the seed.
    """
    _require_plain(args)
    return int(hashlib.md5(str(args).encode()).hexdigest(), 16) % 2**31


def _require_plain(value: object) -> None:
    if type(value) in (list, tuple):
        for item in value:  # type: ignore[attr-defined]
            _require_plain(item)
    elif type(value) not in _PLAIN:
        raise TypeError(f"seed_hash takes plain Python values, got {type(value).__name__}: {value!r}")
