from dg_batchformer.storage.cost import Cost, cost_text
from dg_batchformer.storage.folders import RunFolder, State, SweepFolder, TimedState, write_json


def test_the_cost_of_runs_is_their_sum_and_what_sharing_saved():
    shared, alone = TimedState(State.DONE, 1800.0, 5400.0), TimedState(State.DONE, 3600.0)

    cost = Cost.of([shared, shared, alone, TimedState(State.DONE)])

    assert (cost.runs, cost.seconds, cost.saved, cost.untimed) == (4, 7200.0, 7200.0, 1)
    assert (cost.time, cost.each, cost.saved_time) == ("2.0 h", "40 min", "2.0 h")
    assert cost_text(cost) == "device time: 2.0 h; training rows together saved 2.0 h; unknown for 1 run"
    assert cost_text(Cost.of([alone])) == "device time: 60 min"
    assert cost_text(Cost.of([TimedState(State.DONE)])) == ""


def test_the_log_of_states_keeps_both_times_and_reads_logs_of_earlier_versions(tmp_path):
    folder = SweepFolder(tmp_path)
    write_json(_made(folder.run("one")).done_file, {"outcome": "done", "seconds": 2, "seconds_alone": 6.5})
    write_json(_made(folder.run("two")).done_file, {"outcome": "diverged"})
    for run_id in ("one", "two"):
        folder.log_end(run_id)
    with folder.states_log.open("a") as file:
        file.write("three done 7.0\nfour done\nfive done 1.0 no\n")

    states = folder.final_states()

    assert states["one"] == TimedState(State.DONE, 2.0, 6.5)
    assert states["two"] == TimedState(State.DIVERGED)
    assert states["three"] == TimedState(State.DONE, 7.0)
    assert "five" not in states


def _made(run: RunFolder) -> RunFolder:
    run.path.mkdir(parents=True)
    return run
