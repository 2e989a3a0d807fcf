"""The local launcher with failing or full GPUs, with scripted workers."""

from multiprocessing import Pipe
from threading import Timer

import pytest
from stand_in_gpus import GIB

from dg_batchformer.runtime.memory import CardMemory, Footprint
from dg_batchformer.spec.options import RunOptions
from dg_batchformer.spec.sweep_file import load_sweep
from dg_batchformer.storage.folders import SweepFolder
from dg_batchformer.sweep.expand import expand
from dg_batchformer.sweep.launchers import admission, local

BEGIN, DONE = {"event": "begin", "start": 0}, {"event": "end", "state": "done"}
FULL = {"event": "failed", "sentence": "out of memory on cuda:0", "out_of_memory": "cuda"}
FULL_HOST = {"event": "failed", "sentence": "out of memory on cpu", "out_of_memory": "cpu"}
FAULT = {"event": "fault", "sentence": "cuda:0 failed (ECC)"}


class _Worker:
    """A worker that sends the messages of a script instead of training."""

    script = staticmethod(lambda worker, run: [BEGIN, DONE])
    alive: list["_Worker"] = []  # over all workers
    started: list["_Worker"] = []

    def __init__(self, device, threads, log, sharing, workers=1):
        self.device, self.sharing = device, sharing
        self.channel, self.theirs = Pipe()
        self.told, self.leaves, self.is_usable = None, False, True
        self.num_tasks, self.left, self.footprint = 0, set(), Footprint()
        self.runs, self.faulted, self.is_busy, self.shares = [], [], False, False
        self.alive.append(self)
        self.started.append(self)

    def give(self, message):
        self.leaves, self.is_busy = message is None, message is not None
        self.num_tasks += message is not None
        self.footprint.begin()
        self.shares = message is not None and len(message.runs) > 1
        events = [{**event, "run": run.spec.id} for run in self.runs for event in self.script(self, run)]
        kinds = {event["event"] for event in events}
        if kinds and "unusable" not in kinds:
            events.append({"event": "free", "leaves": "fault" in kinds})
        for event in events:
            self.theirs.send({"memory": 0, **event})
        if message is None or kinds & {"fault", "unusable"}:
            self.theirs.close()

    def event(self):
        try:
            return self.channel.recv()
        except EOFError:
            return None

    def bury(self):
        self.alive.remove(self)
        self.channel.close()
        return 0


class _Report:
    def __init__(self):
        self.ended_as, self.notes = [], []

    def begin(self, run, start):
        pass

    def progress(self, run, done):
        pass

    def ended(self, run, how, sentence):
        self.ended_as.append((run.label, how, sentence))

    def note(self, run, sentence):
        self.notes.append(sentence)


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Return a function that launches ERM, SD and CORAL on devices with a script, and returns the report."""
    monkeypatch.setattr(local, "WorkerProcess", _Worker)
    monkeypatch.setattr(admission, "available_memory", lambda: None)
    monkeypatch.setattr(_Worker, "started", [])
    file = tmp_path / "gpus.yaml"

    def launch(devices, script, rows="ERM, SD, CORAL"):
        file.write_text(f"datasets: [Toy]\nalgorithms: [{rows}]\ntrials: 1\ntest_envs: [A]\n")
        monkeypatch.setattr(_Worker, "script", staticmethod(script))
        report = _Report()
        launcher = local.LocalLauncher(SweepFolder(tmp_path / "results"), devices, RunOptions(), report, threads=1)
        assert launcher.launch(expand(load_sweep(file)))
        assert not _Worker.alive
        return report

    return launch


def test_a_run_that_is_out_of_memory_is_retried_in_a_new_process_alone(launched):
    tried = []

    def script(worker, run):
        if run.label != "SD":
            return [BEGIN, DONE]
        tried.append((len(_Worker.alive), _Worker.started.index(worker)))
        return [BEGIN, FULL if len(tried) == 1 else DONE]

    report = launched(["cuda:0"] * 3, script)

    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 3
    assert report.notes == ["out of memory on cuda:0; the run is retried alone at the end"]
    assert tried[1] == (1, 3), "no other worker is on the card"


@pytest.mark.parametrize(("full", "beside"), [(FULL, 1), (FULL_HOST, 0)], ids=["of the card", "of the host"])
def test_a_run_that_is_out_of_memory_waits_for_its_own_card_or_for_the_whole_machine(full, beside, launched):
    tried = []

    def script(worker, run):
        if run.label == "SD":
            tried.append((worker.device, [other.device for other in _Worker.alive if other is not worker]))
            return [BEGIN, full if len(tried) == 1 else DONE]
        if worker.device == "cuda:1":
            return [BEGIN, *[{"event": "step", "done": 1}] * 200, DONE]
        return [BEGIN, DONE]

    report = launched(["cuda:0", "cuda:0", "cuda:1"], script)

    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 3
    assert [device for device, _ in tried] == ["cuda:0"] * 2, "another card may be smaller"
    assert tried[1][1] == ["cuda:1"] * beside


def test_a_retry_on_its_card_is_retried_on_the_machine_if_the_host_runs_out(launched):
    tried = []

    def script(worker, run):
        if run.label == "SD":
            tried.append(len(_Worker.alive))
            return [BEGIN, [FULL, FULL_HOST, DONE][len(tried) - 1]]
        return [BEGIN, *[{"event": "step", "done": 1}] * (200 if worker.device == "cuda:1" else 1), DONE]

    report = launched(["cuda:0", "cuda:0", "cuda:1"], script)

    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 3
    assert tried[1:] == [2, 1]


def test_a_neighbour_that_exits_before_a_failure_is_heard_counts_as_company(launched, monkeypatch):
    def give(self, message):
        self.leaves, self.is_busy, self.num_tasks = message is None, message is not None, 1
        events = [{"memory": 0, **event, "run": run.spec.id} for run in self.runs for event in self.script(self, run)]
        if message is not None:
            events.append({"event": "free", "leaves": True, "memory": 0})
        late = 0.5 if any(event.get("out_of_memory") for event in events) else 0

        def send():
            for event in events:
                self.theirs.send(event)
            self.theirs.close()

        Timer(late, send).start()

    tried = []

    def script(worker, run):
        if run.label == "SD":
            tried.append(worker)
        return [BEGIN, FULL if run.label == "SD" and len(tried) == 1 else DONE]

    monkeypatch.setattr(_Worker, "give", give)
    report = launched(["cuda:0", "cuda:0"], script, rows="SD, ERM")

    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 2
    assert len(tried) == 2


def test_a_run_whose_worker_dies_as_a_stop_arrives_is_reported_once(launched, monkeypatch):
    ended = []

    def give(self, message):
        self.leaves, self.is_busy = message is None, message is not None
        self.theirs.close()

    def blame(self, runs, *told):
        self._interrupt(2, None)
        return list(runs)

    def end(self, run, how, sentence):
        ended.append((run.label, how))

    monkeypatch.setattr(_Worker, "give", give)
    monkeypatch.setattr(_Worker, "send_signal", lambda self, number: None, raising=False)
    monkeypatch.setattr(local.LocalLauncher, "_blame", blame)
    monkeypatch.setattr(_Report, "ended", end)
    with pytest.raises(AssertionError):  # the launch was interrupted
        launched(["cuda:0"], lambda worker, run: [], rows="SD")

    assert ended == [("SD", "interrupted")]


def test_a_run_that_had_its_card_and_a_new_process_to_itself_is_not_tried_again(launched):
    report = launched(["cuda:0", "cuda:1", "cuda:2"], lambda worker, run: [BEGIN, FULL if run.label == "SD" else DONE])

    assert sorted(how for _, how, _ in report.ended_as) == ["done", "done", "failed"]
    assert report.notes == []


def test_a_retry_whose_gpu_fails_is_not_trained_beside_others(launched):
    tried = []

    def script(worker, run):
        if run.label != "SD":
            return [BEGIN, *[{"event": "step", "done": 1}] * 50, DONE]
        beside = [other.device for other in _Worker.alive].count(worker.device) - 1
        tried.append(beside)
        return [BEGIN, [FULL, FAULT, FULL if beside else DONE][len(tried) - 1]]

    report = launched(["cuda:0", "cuda:0", "cuda:1", "cuda:1"], script, rows="SD, ERM, CORAL, IRM")

    assert tried[1:] == [0, 0]
    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 4


def test_a_card_is_used_again_after_a_fault(launched):
    """Free memory of a card is known from events of its workers, and after a fault there are none."""
    used = []

    def script(worker, run):
        used.append(worker.device)
        card = {"card": CardMemory(20 * GIB, 60 * GIB, 60 * GIB)}
        if worker.device == "cuda:0" and used.count("cuda:0") == 1:
            return [{**BEGIN, **card}, FAULT]
        return [{**BEGIN, **card}, {"event": "step", "done": 1, **card}, DONE]

    report = launched(["cuda:0", "cuda:1"], script, rows="ERM, SD, CORAL, IRM, VREx, MMD, RSC, SagNet, GroupDRO, Mixup")

    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 10
    assert used.count("cuda:0") > 3


def test_a_process_that_dies_after_a_fault_counts_once(launched, monkeypatch):
    tried = []

    def give(self, message):
        self.leaves, self.is_busy = message is None, message is not None
        for run in self.runs if message else ():
            for event in self.script(self, run):
                self.theirs.send({"memory": 0, **event, "run": run.spec.id})
        self.theirs.close()

    def script(worker, run):
        tried.append(run.label)
        return [BEGIN, FAULT if len(tried) < 3 else DONE]

    monkeypatch.setattr(_Worker, "give", give)
    report = launched(["cuda:0"], script, rows="SD")

    assert [how for _, how, _ in report.ended_as] == ["done"]
    assert tried == ["SD"] * 3


def test_runs_of_one_trajectory_are_one_task_and_are_retried_one_by_one_if_out_of_memory(launched):
    tasks = []

    def script(worker, run):
        labels = [of_task.label for of_task in worker.runs]
        tasks.append(labels)
        return [BEGIN, FULL if run.label != "ERM" and len(labels) > 1 else DONE]

    report = launched(["cuda:0"], script, rows="ERM, CORAL, SWAD, EMA")

    together = ["ERM", "SWAD", "EMA"]
    assert tasks == [together, together, together, ["CORAL"], ["SWAD"], ["EMA"]]
    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 4
    assert report.notes == ["out of memory on cuda:0; the run is retried alone at the end"] * 2


def test_runs_of_one_trajectory_are_resumed_together_after_a_gpu_fault(launched):
    tasks = []

    def script(worker, run):
        tasks.append([of_task.label for of_task in worker.runs])
        return [BEGIN, FAULT if len(tasks) <= 2 else DONE]

    report = launched(["cuda:0"], script, rows="ERM, SWAD")

    assert tasks == [["ERM", "SWAD"]] * 4
    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 2


def test_a_run_whose_gpu_failed_is_resumed_by_a_new_worker(launched):
    failing = []

    def script(worker, run):
        if run.label == "SD" and not failing:
            failing.append(worker)
            return [BEGIN, FAULT]
        assert worker not in failing
        return [BEGIN, DONE]

    report = launched(["cuda:0", "cuda:0"], script)

    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 3
    assert report.notes == ["its worker process ended as cuda:0 failed (ECC); the run resumes in another one"]


def test_a_run_fails_after_repeated_gpu_faults(launched):
    report = launched(["cuda:0"], lambda worker, run: [BEGIN, FAULT if run.label == "SD" else DONE])

    [sentence] = [sentence for label, how, sentence in report.ended_as if how == "failed"]
    assert sentence.startswith("3 worker processes died during this run, the last as cuda:0 failed (ECC); see ")
    assert [label for label, how, _ in report.ended_as if how == "done"] == ["ERM", "CORAL"]


def test_progress_between_faults_resets_the_count(launched):
    starts = iter([0, 0, 100, 100, 200])

    def script(worker, run):
        if run.label != "SD":
            return [BEGIN, DONE]
        start = next(starts, None)
        return [BEGIN, DONE] if start is None else [{**BEGIN, "start": start}, FAULT]

    report = launched(["cuda:0"], script)

    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 3


def test_a_run_waits_while_its_card_is_too_full_for_it(monkeypatch):
    monkeypatch.setattr(admission, "available_memory", lambda: None)
    judge, worker, beside = admission.Admission(), _Worker("cuda:0", 1, None, 2), _Worker("cuda:0", 1, None, 2)
    other = _Worker("cuda:1", 1, None, 1)
    _Worker.alive.clear()

    beside.footprint.has_settled = True

    def has(worker, **card):
        card = CardMemory(**{name: size * GIB for name, size in card.items()})
        judge.hear(worker, {"event": "free", "memory": 0, "card": card})

    has(worker, free=10, held=5, most=20)
    assert judge.is_short(worker, [beside])
    assert not judge.is_short(worker, [other]), "nothing of ours would make room on that card"
    has(worker, free=16, held=5, most=20)
    assert not judge.is_short(worker, [beside]), "memory that the worker already holds is included"


def test_memory_that_a_run_has_yet_to_take_is_not_given_to_another(monkeypatch):
    judge, worker, begun = admission.Admission(), _Worker("cuda:0", 1, None, 2), _Worker("cuda:0", 1, None, 2)
    _Worker.alive.clear()

    monkeypatch.setattr(admission, "available_memory", lambda: None)
    judge.hear(begun, {"event": "begin", "memory": 0, "card": CardMemory(free=30 * GIB, held=1 * GIB, most=20 * GIB)})
    assert judge.is_short(worker, [begun]), "19 of 30 GiB are to be taken"
    judge.hear(begun, {"event": "step", "memory": 0, "card": CardMemory(free=30 * GIB, held=1 * GIB, most=20 * GIB)})
    assert not judge.is_short(worker, [begun]), "it has made updates, and needs no more"

    judge.hear(worker, {"event": "free", "memory": 6 * GIB})
    begun.footprint.begin()
    judge.hear(begun, {"event": "begin", "memory": 2 * GIB})
    judge.hear(worker, {"event": "free", "memory": 1 * GIB})
    monkeypatch.setattr(admission, "available_memory", lambda: 8 * GIB)
    assert judge.is_short(worker, [begun]), "4 of 8 GiB are to be taken"
    assert not judge.is_short(worker, [])


def test_the_memory_of_a_run_that_did_not_fit_is_not_expected_of_others(monkeypatch):
    judge, worker = admission.Admission(), _Worker("cuda:0", 1, None, 1)
    _Worker.alive.clear()
    monkeypatch.setattr(admission, "available_memory", lambda: 8 * GIB)

    judge.hear(worker, {"event": "failed", "memory": 12 * GIB, "out_of_memory": "cpu"})
    judge.hear(worker, {"event": "free", "memory": 0})

    assert not judge.is_short(worker, [])


def test_workers_learn_how_many_share_their_card(launched):
    launched(["cuda:0", "cuda:1", "cuda:0"], lambda worker, run: [BEGIN, DONE])

    assert [(worker.device, worker.sharing) for worker in _Worker.started] == [
        ("cuda:0", 2),
        ("cuda:1", 1),
        ("cuda:0", 2),
    ]


def test_a_worker_without_room_on_its_card_leaves_runs_to_others(launched):
    def script(worker, run):
        usable = worker is _Worker.started[0]
        return [BEGIN, DONE] if usable else [{"event": "unusable", "sentence": "full"}]

    report = launched(["cuda:0", "cuda:0"], script)

    assert sorted(how for _, how, _ in report.ended_as) == ["done"] * 3
    assert len(_Worker.started) == 2
