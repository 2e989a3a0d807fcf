import json
import re
from pathlib import Path

import pytest

from dg_batchformer.training.splits import split_indices

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "domainbed_golden.json").read_text())["splits"]


@pytest.mark.parametrize("case", GOLDEN)
def test_splits_are_domainbeds_bit_for_bit(case):
    n, fraction, trial_seed, env = re.fullmatch(r"n=(\d+) holdout=(.+) trial_seed=(\d+) env_i=(\d+)", case).groups()

    out, kept = split_indices(int(n), float(fraction), int(trial_seed), int(env))

    assert out == GOLDEN[case]["out"]
    assert kept == GOLDEN[case]["in"]
