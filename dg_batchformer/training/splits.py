"""DomainBed's splits of an environment: ``in`` for training, ``out`` held out."""

import numpy as np

from dg_batchformer.seeds import seed_hash


def split_indices(n: int, holdout_fraction: float, trial_seed: int, env: int) -> tuple[list[int], list[int]]:
    """Split the indices of an environment with n images into (out, in), identical to DomainBed including the order.

    The first ``int(n * holdout_fraction)`` shuffled indices are ``out``, the rest ``in``. DomainBed reshuffles the
    ``in`` part of a test environment, which does not change the set and is omitted.
    """
    keys = list(range(n))
    np.random.RandomState(seed_hash(trial_seed, env)).shuffle(keys)
    held_out = int(n * holdout_fraction)
    return keys[:held_out], keys[held_out:]
