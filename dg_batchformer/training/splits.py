"""Splits: which images of an environment are trained on (``in``) and held out (``out``), as DomainBed cuts them."""

import numpy as np

from dg_batchformer.seeds import seed_hash


def split_indices(n: int, holdout_fraction: float, trial_seed: int, env: int) -> tuple[list[int], list[int]]:
    """Split the indices of an environment of n images into (out, in), in DomainBed's order, bit for bit.

    The first ``int(n * holdout_fraction)`` shuffled indices are ``out``, the rest is ``in``. DomainBed
    cuts the ``in`` part of a test environment once more; as a set it stays the same, so this is not done.
    """
    keys = list(range(n))
    np.random.RandomState(seed_hash(trial_seed, env)).shuffle(keys)
    held_out = int(n * holdout_fraction)
    return keys[:held_out], keys[held_out:]
