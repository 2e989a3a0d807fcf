import json
from pathlib import Path

import numpy as np
import pytest

from dg_batchformer.seeds import seed_hash

GOLDEN = json.loads((Path(__file__).parent / "data" / "domainbed_golden.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["seed_hash"], ids=lambda case: str(case["args"]))
def test_seed_hash_is_domainbeds(case):
    assert seed_hash(*case["args"]) == case["value"]


def test_values_whose_text_depends_on_numpy_are_refused():
    with pytest.raises(TypeError, match="plain Python values, got int64"):
        seed_hash("PACS", [np.int64(0)])
