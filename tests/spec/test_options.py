from dg_batchformer.spec.options import RunOptions


def test_checkpoints_take_at_most_a_fiftieth_of_the_time():
    options = RunOptions(save_seconds=60.0)

    assert options.save_interval(0.5) == 60
    assert options.save_interval(4.0) == 200


def test_an_interval_of_zero_saves_after_every_step():
    assert RunOptions(save_seconds=0.0).save_interval(4.0) == 0
