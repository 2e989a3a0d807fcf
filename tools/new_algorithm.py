#!/usr/bin/env python3
"""Start a new algorithm: tools/new_algorithm.py MyMethod --paper "Doe et al., 2026: what it does, in one sentence"

Writes dg_batchformer/algorithms/my_method.py and tests/algorithms/test_my_method.py: ERM plus a penalty, the mean
squared logit, to be replaced with yours. Both pass lint and tests as they are.
"""

import argparse
import keyword
import re
import sys
from pathlib import Path
from string import Template

from dg_batchformer.catalog.wrappers import wrapper_names

ROOT = Path(__file__).parents[1]

ALGORITHM = Template('''"""$name — $paper"""

import torch
from torch import Tensor

from dg_batchformer.algorithms.base import Metrics, Minibatches, descend
from dg_batchformer.algorithms.erm import ERM
from dg_batchformer.hparams import HParam


def ${snake}_penalty(logits: Tensor) -> Tensor:
    """Return the penalty on logits, (N, num_classes) -> ()."""
    return logits.square().mean()


class $name(ERM):
    """ERM plus a penalty on the logits."""

    @classmethod
    def search_space(cls, dataset: str) -> dict[str, HParam]:
        return {"${snake}_weight": HParam(0.1, lambda rng: 10 ** rng.uniform(-3, 1), "weight of the penalty", low=0)}

    def update(self, minibatches: Minibatches, unlabeled: list[Tensor] | None = None) -> Metrics:
        x = torch.cat([x for x, _ in minibatches])
        y = torch.cat([y for _, y in minibatches])
        logits = self.network(x)
        risk = self.risk(logits, y, num_domains=len(minibatches))
        plain, _ = self.split_streams(logits, num_domains=len(minibatches))
        penalty = ${snake}_penalty(plain)
        descend(self.optimizer, risk + self.hparams["${snake}_weight"] * penalty)
        return {"loss": risk.detach(), "penalty": penalty.detach()}
''')

TEST = Template("""import torch
from support import make_algorithm, make_minibatches
from torch.testing import assert_close

from dg_batchformer.algorithms.$snake import ${snake}_penalty


def test_the_penalty_is_the_mean_squared_logit():
    assert_close(${snake}_penalty(torch.tensor([[1.0, 3.0]])), torch.tensor(5.0))


def test_without_the_penalty_it_is_erm():
    plain, penalised = make_algorithm("ERM"), make_algorithm("$name", ${snake}_weight=0.0)

    for seed in range(2):
        minibatches = make_minibatches(seed=seed)
        assert_close(penalised.update(minibatches)["loss"], plain.update(minibatches)["loss"])
""")


def main() -> int:
    """Write both files, or print the reason in one sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the class, as MyMethod")
    parser.add_argument("--paper", required=True, help='"AUTHORS, YEAR: what it does, in one sentence"')
    parser.add_argument("--root", type=Path, default=ROOT, help="of the checkout to write into (default: this one)")
    options = parser.parse_args()
    name, paper = options.name, " ".join(options.paper.split())
    snake = snake_case(name)
    files = {
        options.root / "dg_batchformer" / "algorithms" / f"{snake}.py": ALGORITHM,
        options.root / "tests" / "algorithms" / f"test_{snake}.py": TEST,
    }
    there = [f"{path} is there already" for path in files if path.exists()]
    reason = refusal(name, paper, known_names(options.root)) or "".join(there[:1])
    if reason:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    for path, template in files.items():
        path.write_text(template.substitute(name=name, snake=snake, paper=paper))
        print(f"wrote {path.relative_to(options.root)}")
    print(f"next: python -m pytest tests/algorithms/test_{snake}.py tests/contracts -k {name}")
    return 0


def snake_case(name: str) -> str:
    """Return the name of the file of a class: MyVREx -> my_vrex."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def known_names(root: Path) -> set[str]:
    """Return the class names of algorithms and wrappers without importing them."""
    files = (root / "dg_batchformer" / "algorithms").glob("*.py")
    return {*wrapper_names(), *(name for file in files for name in re.findall(r"^class (\w+)", file.read_text(), re.M))}


def refusal(name: str, paper: str, known: set[str]) -> str:
    """Return why a name or a paper cannot be used, '' if it can."""
    if not re.fullmatch(r"[A-Z][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
        return f"{name!r} is not a class name; write it as MyMethod"
    if name.casefold() in {taken.casefold() for taken in known}:
        return f"there is {name} already; take another name"
    if not re.match(r"[^:]+, \d{4}: \S", paper) or '"' in paper:
        return f'--paper {paper!r} is not "AUTHORS, YEAR: what it does, in one sentence"'
    if len(name) + len(paper) > 110:
        return f"--paper has {len(paper)} characters, which is more than one line takes; shorten it"
    return ""


if __name__ == "__main__":
    sys.exit(main())
