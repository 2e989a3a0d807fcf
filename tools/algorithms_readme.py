#!/usr/bin/env python3
"""Write dg_batchformer/algorithms/README.md from the registry and the docstrings: tools/algorithms_readme.py"""

import argparse
import inspect
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from dg_batchformer.algorithms import ALGORITHMS, get_algorithm_class
from dg_batchformer.catalog.datasets import DOMAINBED_ORDER, dataset_facts, known_first
from dg_batchformer.catalog.wrappers import averaging_wrappers
from dg_batchformer.errors import InputError
from dg_batchformer.hparams_registry import default_hparams

ROOT = Path(__file__).parents[1]
README = ROOT / "dg_batchformer" / "algorithms" / "README.md"
EQUAL_UPDATES = json.loads((ROOT / "tests" / "data" / "upstream_trajectories.json").read_text())
SHAPES = ("{}", "{}+BF", "SWAD+{}", "SWAD+{}+BF")
NAMES = known_first(ALGORITHMS, DOMAINBED_ORDER)
DIFFERS = "Differs from DomainBed: "

TEMPLATE = """# Algorithms

<!-- Written by tools/algorithms_readme.py from the registry and the docstrings: change those, then run it. -->

Every algorithm runs plain and as `NAME+BF`, and both as {averaged};
on images, also with `+MixStyle`. In the table,

* **attends to** is what a sample attends to under `+BF`: all environments in one sequence, or only its own if the
  method forwards each environment separately;
* **updates** is `=` if six updates equal DomainBed's to a thousandth, from equal weights on equal data; `≠` if they
  differ on purpose, for the reason below; empty for methods that are not in DomainBed, which tests compare with their
  definitions. `tools/compare_upstream.py` makes the comparison, and tests repeat it.

{overview}

Predictions of {batch_dependent} depend on the other samples of the batch, by definition of the method; those of all
others do not.

With a single training environment, algorithms that compare environments train much like ERM, and say so: {compares}.

## Refused compositions

{refusals}

## Details

The hparams are those of the algorithm itself, with defaults on PACS; those with a * are drawn if `hparams_seed` is not
0. `dg-batchformer list hparams NAME --dataset DATASET --protocol PROTOCOL` lists all hparams of a run.

{sections}
"""


def readme() -> str:
    """Return the text of the README."""
    dependent = [name for name in NAMES if ALGORITHMS[name].batch_dependent]
    return TEMPLATE.format(
        averaged=_joined([f"`{name}+...`" for name in averaging_wrappers()], "or"),
        overview=_overview(),
        batch_dependent=_joined(dependent, "and"),
        compares=_joined([name for name in NAMES if ALGORITHMS[name].compares_domains], "and"),
        refusals=_refusals(),
        sections="\n\n".join(_section(name) for name in NAMES),
    )


def _overview() -> str:
    rows = []
    for name in NAMES:
        attends = "all" if ALGORITHMS[name].attends == "joint" else "its own"
        equal = "" if name not in DOMAINBED_ORDER else "=" if name in EQUAL_UPDATES else "≠"
        rows.append([f"[{name}](#{name.lower()})", _paper(name), _paragraphs(name)[0], attends, equal])
    return _table(["algorithm", "paper", "what it does", "attends to", "updates"], rows)


def _section(name: str) -> str:
    first, *others = _paragraphs(name)
    file = Path(inspect.getfile(ALGORITHMS[name])).name
    parts = [f"### {name}", f"{_paper(name)}, [`{file}`]({file}). {first}"]
    parts += [text.replace(DIFFERS, f"*{DIFFERS.strip()}* ") for text in others]
    space = ALGORITHMS[name].search_space("PACS")
    rows = [
        [f"`{key}`{' *' if hparam.draw else ''}", _short(hparam.default), hparam.about, hparam.allowed]
        for key, hparam in space.items()
    ]
    parts.append(_table(["hparam", "default", "description", "allowed"], rows) if rows else "No hparams of its own.")
    return "\n\n".join(parts)


def _joined(names: list[str], word: str) -> str:
    return f" {word} ".join([", ".join(names[:-1]), names[-1]])


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _paragraphs(name: str) -> list[str]:
    """Return the paragraphs of the docstring, each on one line, in Markdown."""
    return [" ".join(part.split()).replace("``", "`") for part in inspect.getdoc(ALGORITHMS[name]).split("\n\n")]


def _paper(name: str) -> str:
    """Return authors and year, from a file's 'NAME — AUTHORS, YEAR: sentence' or 'A and B — OF A; OF B: sentence'."""
    module: Any = inspect.getmodule(ALGORITHMS[name])
    titles, _, rest = module.__doc__.splitlines()[0].partition(" — ")
    papers = rest.partition(": ")[0].split("; ")
    offered = [key for key in vars(module) if key in ALGORITHMS and ALGORITHMS[key].__module__ == module.__name__]
    return papers[offered.index(name)] if len(papers) == len(titles.split(" and ")) > 1 else "; ".join(papers)


def _refusals() -> str:
    """Return the table of compositions that cannot be built for 1, 2 or 3 training environments."""
    refused = defaultdict(list)
    facts = dataset_facts("Shapes")
    for name in NAMES:
        for full in (shape.format(name) for shape in SHAPES):
            hparams = {**default_hparams(full, "Shapes"), "backbone": "tiny"}
            for num_domains in (1, 2, 3):
                try:
                    get_algorithm_class(full)(facts.shape, facts.num_classes, num_domains, hparams)
                except InputError as reason:
                    refused[name, num_domains, str(reason)].append(full)
    if not refused:
        return "None: every algorithm runs in every composition, also with one training environment."
    rows = [
        ["all of " + name if len(fulls) == len(SHAPES) else ", ".join(fulls), num_domains, reason]
        for (name, num_domains, reason), fulls in refused.items()
    ]
    return _table(["composition", "training environments", "reason"], rows)


def _table(headers: list[str], rows: list[list[Any]]) -> str:
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    README.write_text(readme())
    print(f"wrote {README.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
