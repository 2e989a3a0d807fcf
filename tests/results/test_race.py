"""Standing in a race, from records on disk."""

import pytest

from dg_batchformer.results.race import standing_at
from dg_batchformer.spec.race import Bracket, Race
from dg_batchformer.spec.run import RunRequest
from dg_batchformer.storage.folders import RunFolder
from dg_batchformer.storage.records import to_line

RACE = Race((4, 8), 0.5)


@pytest.fixture
def bracket(tmp_path):
    """Three runs: the second validates best at step 0, the third later; the first has not begun."""
    request = {"dataset": "Toy", "algorithm": "ERM", "test_envs": (0,), "steps": 13, "checkpoint_freq": 4}
    specs = [RunRequest(**request, hparams_seed=draw).resolve() for draw in range(3)]
    for spec, validation in zip(specs[1:], ([0.9, 0.2, 0.3], [0.1, 0.5, 0.6]), strict=True):
        path = tmp_path / spec.id
        path.mkdir()
        lines = [
            {"step": 4 * place, "args": {}, "env0_out_acc": 1.0}
            | {f"env{env}_out_acc": value + 0.1 * (env - 2) for env in (1, 2, 3)}
            for place, value in enumerate(validation)
        ]
        (path / "results.jsonl").write_text("".join(map(to_line, lines)))
    return tmp_path, specs, Bracket(RACE, tuple(spec.id for spec in specs))


def test_runs_are_compared_by_their_best_validation_up_to_the_rung(bracket):
    path, (_, early, late), of_three = bracket

    places = {spec: standing_at(8, spec, RunFolder(path / spec.id), of_three) for spec in (early, late)}

    assert [(place.rank, place.of, place.continues) for place in places.values()] == [(1, 2, True), (2, 2, False)]
    assert [place.validation for place in places.values()] == pytest.approx([0.9, 0.6])


def test_only_runs_with_a_record_of_the_rung_count_whatever_lies_in_the_folders_of_others(bracket):
    path, (absent, early, late), of_three = bracket
    records = path / early.id / "results.jsonl"
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:2]) + '{"torn')
    (path / absent.id / "results.jsonl").mkdir(parents=True)

    assert standing_at(8, late, RunFolder(path / late.id), of_three)[1:3] == (1, 1)
    assert standing_at(4, late, RunFolder(path / late.id), of_three)[1:3] == (2, 2)


def test_a_run_whose_validation_is_not_a_number_is_last(bracket):
    path, (_, early, late), of_three = bracket
    records = path / late.id / "results.jsonl"
    records.write_text(records.read_text().replace("0.5", "NaN").replace("0.6", "NaN").replace("0.1", "NaN"))

    assert standing_at(8, late, RunFolder(path / late.id), of_three)[1:3] == (2, 2)
    assert standing_at(8, early, RunFolder(path / early.id), of_three)[1:3] == (1, 2)
