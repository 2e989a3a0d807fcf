"""Seeds derived as in DomainBed: the MD5 hash of the arguments as text."""

import hashlib

_PLAIN = (int, str, float, bool, type(None))


def seed_hash(*args: object) -> int:
    """Return a seed in [0, 2**31), equal to that of DomainBed's ``seed_hash``.

    Raises:
        TypeError: an argument is not an int, float, string, boolean, None, or a list or tuple of these. The text of a
            NumPy scalar, and thereby the seed, would differ between NumPy 1 and 2.

    """
    _require_plain(args)
    return int(hashlib.md5(str(args).encode()).hexdigest(), 16) % 2**31


def _require_plain(value: object) -> None:
    if type(value) in (list, tuple):
        for item in value:  # type: ignore[attr-defined]
            _require_plain(item)
    elif type(value) not in _PLAIN:
        raise TypeError(f"seed_hash takes plain Python values, got {type(value).__name__}: {value!r}")
