"""Commands in messages: every flag exists, every command parses, and cheap ones run."""

import argparse
import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from data_folders import write_images, write_own
from domainbed_sweeps import Kind, write_sweep
from support import resolved

from dg_batchformer.cli.main import main, parser
from dg_batchformer.storage.folders import RunFolder, SweepFolder, write_json
from dg_batchformer.storage.records import to_line
from dg_batchformer.sweep.launchers.local import LocalLauncher
from dg_batchformer.text.command import PROGRAM

PACKAGE = Path(__file__).parents[2] / "dg_batchformer"
FLAG = re.compile(r"(?<![\w-])--([a-z]\w+)")
# Flags of squeue, srun, git, tensorboard ... and of DomainBed's sweep.
FOREIGN = {
    "abbrev", "allocations", "always", "array", "cpus", "dirty", "exclude", "format", "jobs", "logdir", "me",
    "noheader", "oneliner", "parsable2", "query", "quiet", "shm", "single_test_envs", "no", "help",
}  # fmt: skip
CSS = {"accent", "ink", "muted", "paper", "rule", "row", "tint"}


def _flags(command_line, name=""):
    """Return the flags of every command by name, such as ``data verify``."""
    found = {name: {flag.lstrip("-") for action in command_line._actions for flag in action.option_strings}}
    for action in command_line._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, inner in action.choices.items():
                found |= _flags(inner, f"{name} {verb}".strip())
    return found


FLAGS = _flags(parser())


def _nodes():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            yield path, node


def _constants():
    for path, node in _nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield path, node.value


def test_every_flag_in_messages_exists():
    known = set().union(*FLAGS.values()) | FOREIGN | CSS
    strange = {(path.name, flag) for path, text in _constants() for flag in FLAG.findall(text) if flag not in known}

    assert not strange


def test_every_complete_command_in_the_code_parses_and_is_written_once():
    calls = [node for _, node in _nodes() if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command"]
    whole = [call for call in calls if not call.keywords and all(isinstance(word, ast.Constant) for word in call.args)]

    assert whole
    for call in whole:
        assert parser().parse_args([word.value for word in call.args])
    spelled = {path for path, text in _constants() if re.search("(-m dg_batchformer|^dg-batchformer)( |$)", text)}
    assert spelled == {PACKAGE / "text" / "command.py"}


def _check(verb, said):
    """Compare the flags in a message with those of the commands that it names, or of the command that printed it."""
    for sentence in said.splitlines():
        commands = re.findall(rf"{PROGRAM} (.*?)(?=; |\)|$)", sentence)
        for line in commands:
            parser().parse_args(shlex.split(line))
        rest = sentence
        for line in commands:
            rest = rest.replace(line, "")
        named = {name for name in FLAGS if name and re.search(rf"\b{name}\b", rest.replace("train_envs", ""))}
        allowed = set().union(*(FLAGS[name] for name in {verb, *named})) | {"single_test_envs"}
        assert set(FLAG.findall(rest)) <= allowed, sentence


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with data, sweep files, and sweeps and runs in many states."""
    monkeypatch.chdir(tmp_path)
    write_own(Path("data"))
    Path("sweeps").mkdir()
    small = "protocol: quick\ntrials: 1\nsteps: 3\n"
    for name, more in {
        "mine": "datasets: [Mine]\nalgorithms: [ERM, CORAL]\n",
        "path": "datasets: [data/Mine]\nalgorithms: [ERM]\n",
        "pacs": "datasets: [PACS]\nalgorithms: [ERM]\n",
        "typo": "datasets: [Toy]\nalgorithms: [CORRAL]\n",
        "hparam": "datasets: [Toy]\nalgorithms: [{name: ERM, hparams: {lrr: 1}}]\n",
        "toy": "datasets: [Toy]\nalgorithms: [ERM, ERM+BF]\ndraws: 2\n",
        "compiled": "datasets: [Toy]\nalgorithms: [ERM]\ncompile: on\n",
    }.items():
        Path(f"sweeps/{name}.yaml").write_text(more + small)
    monkeypatch.setattr(LocalLauncher, "launch", lambda self, due: True)
    assert main(["sweep", "sweeps/toy.yaml"]) == 1
    write_sweep(Path("domainbed"), Kind(datasets=("PACS", "Nowhere"), trials=1, draws=1), seed=0)
    shutil.copytree("domainbed", "copied")
    for done in Path("copied").glob("*/done"):
        done.unlink()
    for name, state in {"run": "done", "begun": "checkpoint.pt"}.items():
        folder, spec = RunFolder(Path(name)), resolved("Toy")
        folder.path.mkdir()
        write_json(folder.spec_file, spec.as_dict())
        folder.records_file.write_text(to_line({"step": 0, "args": {}, "env0_in_acc": 0.5}))
        (folder.path / state).write_text("{}")
    return tmp_path


WRONG = [
    "train --dataset data/Mine --data_dir data",
    "train --dataset Mine",
    "train --dataset Mine --data_dir data/Mine",
    "train --dataset PACS",
    "train --dataset PACS --data_dir data",
    "train --dataset WILDSFMoW --data_dir data",
    "train --dataset RotatedMNIST",
    "train --dataset RotatedMNIST --data_dir data",
    "train --algorithm CORRAL",
    'train --algorithm MixStyle --protocol quick --hparams \'{"backbone": "vit_small"}\'',
    "train --hparams '{lr: 1}'",
    "train --protocol swad",
    "train --dataset Toy --device cuda:9",
    "train --dataset Toy --output_dir run --trial_seed 7",
    "sweep sweeps/mine.yaml",
    "sweep sweeps/path.yaml --data_dir data",
    "sweep sweeps/pacs.yaml",
    "sweep sweeps/pacs.yaml --data_dir data",
    "sweep sweeps/typo.yaml",
    "sweep sweeps/hparam.yaml",
    "sweep sweeps/none.yaml",
    "sweep sweeps/toy.yaml --devices cpu,,cpu",
    "sweep sweeps/toy.yaml --launcher slurm --slurm gpu",
    "status domainbed",
    "status results",
    "cancel run",
    "tables data",
    "tables results/toy --metric ece --published",
    "tables results/toy --format domainbed --output out",
    "tables results/toy --format domainbed --selection swad-iid",
    "tables results/toy --expect",
    "tables results/toy results/toy --expect",
    "tables results/toy --compare_to SWAD",
    "tables copied",
    "tables domainbed --format domainbed",
    "tables results/toy --metric ece",
    "compare ERM results/toy ERM+BF",
    "compare ERM CORAL results/toy",
    "compare ERM ERM+BF results/toy",
    "report results/toy domainbed",
    "report results/toy --output sweeps/toy.yaml/page.html",
    "explain results/toy",
    "explain run",
    "explain begun",
    "predict run data",
    "predict begun data --output none/out.csv",
    "soup results/toy",
    "soup domainbed",
    "data verify PASC",
    "data verify data/Mine --data_dir data",
    "data info Mine",
    "data info Mine --data_dir data --output page.pdf",
    "data cache Shapes",
    "data cache Mine --data_dir data --image_size 0",
    "data prepare Shapes --data_dir data",
    "data prepare SVIRO --data_dir data --from none.zip",
    "list algorithms ERN",
    "list backbones resnet",
    "list datasets PASC",
]


@pytest.mark.parametrize("typed", WRONG)
def test_advice_names_flags_that_the_command_has(typed, place, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(place))
    words = shlex.split(typed)
    capsys.readouterr()

    main(words)

    said = capsys.readouterr()
    _check(" ".join(words[:2] if words[0] == "data" else words[:1]), said.err)
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("options", "lacking"),
    [
        ([], {"model", "predictions"}),
        (["--keep", "final"], {"predictions"}),
        (["--keep", "best", "--predictions"], set()),
    ],
)
def test_a_launch_first_notes_which_commands_will_lack_files(options, lacking, place, capsys):
    capsys.readouterr()

    main(["sweep", "sweeps/toy.yaml", *options])

    assert set(re.findall(r"note: runs keep no (\w+); .* so add --", capsys.readouterr().out)) == lacking


def test_every_command_that_a_sweep_prints_works_in_the_working_folder(tmp_path, monkeypatch, capsys):
    """The commands of status, tables and report have the file, data and options of the sweep, and run."""
    place = tmp_path / "it's 100% new"
    place.mkdir()
    monkeypatch.chdir(place)
    write_own(Path("my data"))
    Path("mine.yaml").write_text("datasets: [Mine]\nalgorithms: [ERM]\nprotocol: quick\ntrials: 1\nsteps: 3\n")
    launched = []

    def launch(self, due):
        launched.append((self.options.data_dir, self.options.keep, self.threads, *self.devices, len(due)))
        return True

    monkeypatch.setattr(LocalLauncher, "launch", launch)
    options = ["--data_dir", "my data", "--results_dir", "my results", "--keep", "final", "--threads", "2"]
    main(["sweep", "mine.yaml", *options, "--devices", "cpu,cpu"])
    printed = capsys.readouterr().out
    main(["status", "my results/mine"])
    printed += capsys.readouterr().out
    main(["tables", "my results/mine"])
    printed += capsys.readouterr().err
    main(["report", "my results/mine", "--output", "a page.html"])
    printed += re.sub("<[^>]*>", "", Path("a page.html").read_text()).replace("&#39;", "'")
    capsys.readouterr()

    commands = dict.fromkeys(re.findall(rf"{PROGRAM} (.+)$", printed, re.MULTILINE))

    assert {line.split()[0] for line in commands} == {"status", "tables", "report", "sweep"}
    for line in commands:
        assert main(shlex.split(line)) in (0, 1), line
    assert len(launched) == 1 + sum(line.startswith("sweep") for line in commands)
    assert set(launched) == {(Path("my data"), "final", 2, "cpu", "cpu", 3)}
    assert SweepFolder(Path("my results/mine")).sweep_file.exists()


@pytest.mark.parametrize(
    ("there", "data_dir"),
    [("data/kfold", "data/kfold"), ("data/kfold", "data"), ("data/PACS", "data/PACS"), ("data/PACS/kfold", "data"),
     ("my data/PACS", "my data/PACS"), ("it's/k fold", "it's")],
)  # fmt: skip
def test_the_advice_for_pacs_in_another_folder_leads_to_training(there, data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for environment in ("art_painting", "cartoon", "photo", "sketch"):
        for kind in ("dog", "house"):
            write_images(Path(there) / environment / kind)
    train = ["train", "--dataset", "PACS", "--protocol", "quick"]
    assert main([*train, "--data_dir", data_dir]) == 2
    said = capsys.readouterr().err

    for fix in re.findall(r"((?:ln|mv) .+?)(?:; then|$)", said, re.MULTILINE):
        subprocess.run(fix, shell=True, check=True)
    other = re.findall(r"give its parent: --data_dir (.+)$", said, re.MULTILINE)
    [data_dir] = shlex.split(other[0]) if other else [data_dir]

    assert main(["data", "info", "PACS", "--data_dir", data_dir]) == 0
    assert (Path(data_dir) / "PACS" / "photo").is_dir()
