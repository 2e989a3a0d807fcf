"""``tables``: model-selection tables, with published numbers if asked, or compared with expected ones."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from dg_batchformer.cli.common import INCOMPLETE, OK, Verbs
from dg_batchformer.cli.sweeps_read import ARRANGING, add_naming, add_reading, add_rows, collect_asked, print_notes
from dg_batchformer.errors import InputError
from dg_batchformer.results.cache import read_folders
from dg_batchformer.results.collection import Collection, cost_of, costs_of_rows, damaged_records, unreadable_lines
from dg_batchformer.results.domainbed_selection import CHOOSE
from dg_batchformer.results.metrics import ACCURACY, METRICS
from dg_batchformer.results.our_sweep import read_files
from dg_batchformer.results.runs import RecordsFile
from dg_batchformer.results.selection import DEFAULT_METHODS, METHODS
from dg_batchformer.spec.manifest import read_sweep_manifest
from dg_batchformer.storage.cost import cost_text
from dg_batchformer.storage.folders import SweepFolder, write_text
from dg_batchformer.tables.by_class import with_classes
from dg_batchformer.tables.columns import with_columns
from dg_batchformer.tables.domainbed import domainbed_tables, left_out
from dg_batchformer.tables.draws import with_draws
from dg_batchformer.tables.render import FORMATS, render
from dg_batchformer.tables.render.latex_text import needs_fonts
from dg_batchformer.tables.side_by_side import side_by_side
from dg_batchformer.tables.table import Section, build_sections
from dg_batchformer.text.counts import listed
from dg_batchformer.text.spelling import one_form


def add_parser(verbs: Verbs) -> None:
    """Add the verb and its options."""
    files = ", ".join(form.file for form in FORMATS.values())
    methods = "\n".join(f"  {method.name:<22}{method.about}" for method in METHODS.values())
    verb = verbs.add_parser(
        "tables",
        help="print the model-selection tables of a sweep, ours or DomainBed's",
        description="Print the tables of sweeps: mean and standard error of the test accuracy over trials.",
        epilog=f"selection methods, and the step and hyper-parameter draw that they choose:\n{methods}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    add = verb.add_argument
    add("folders", nargs="+", type=Path, metavar="DIR",
        help="folder of a sweep such as results/quickstart, of a run, or of a DomainBed sweep; several make one "
        "table")  # fmt: skip
    add("--format", choices=(*FORMATS, *_DOMAINBED),
        help="output format; domainbed and domainbed_latex print what DomainBed's collect_results prints for the same "
        "runs (default: text)")  # fmt: skip
    add("--selection", nargs="+", action="extend", choices=(*METHODS, "all"), metavar="METHOD",
        help="one or more of the methods below; all also prints them side by side "
        f"(default: {' '.join(DEFAULT_METHODS)})")  # fmt: skip
    add("--metric", choices=METRICS,
        help="accuracy (the default). For runs with an imbalance, many, medium, few: mean accuracy over classes with "
        "that many training images, few-many: the difference. For these, and for runs trained with --predictions, "
        "balanced: mean accuracy over classes, worst-class: accuracy of the worst class. For the latter, ece: expected "
        "calibration error")  # fmt: skip
    add("--by_class", action="store_true", default=None,
        help="add tables of the accuracy on every class, for runs with an imbalance")  # fmt: skip
    add("--published", nargs="*", action="extend", metavar="NAME",
        help="add published rows with the same dataset, backbone, weights and selection: those of the sweep's "
        "algorithms, of the named ones, or all")  # fmt: skip
    add(
        "--compare_to",
        metavar="ROW",
        type=one_form,
        help="mark the averages that differ significantly from this row's",
    )
    add(
        "--hparams",
        action="store_true",
        default=None,
        help="list below each table the selected step, and draw or grid point, by row, environment and trial",
    )
    add_reading(verb)
    add_rows(verb)
    add_naming(verb)
    add("--expect", action="store_true",
        help="instead, compare averages with those that the sweep file expects; status 1 if one is outside its "
        "tolerance")  # fmt: skip
    add("--output", type=Path, metavar="DIR",
        help=f"also write {files} into this folder, and tables.bib with the works they cite")  # fmt: skip


_DOMAINBED = ("domainbed", "domainbed_latex")


def run(options: argparse.Namespace) -> int:
    """Print the tables of sweeps; with ``--output``, write them in every format."""
    if options.expect:
        return _expect(options)
    metric = METRICS[options.metric or "accuracy"]
    for name in ("published", "compare_to"):
        if metric is not ACCURACY and getattr(options, name) is not None:
            raise InputError(f"--{name} applies to accuracy only; drop it, or --metric {options.metric}")
    asked = options.selection or list(DEFAULT_METHODS)
    if options.format in _DOMAINBED:
        return _print_as_domainbed(options, asked)
    collection = collect_asked(options, predictions=metric.measure is not None)
    sections = build_sections(collection, list(METHODS) if "all" in asked else asked, metric)
    if options.compare_to is not None:
        from dg_batchformer.tables.significance import mark_significant

        sections = mark_significant(sections, collection, options.compare_to)
    if options.published is not None:
        from dg_batchformer.tables.published.match import add_published

        sections = add_published(sections, collection.runs, options.published)
    if options.hparams:
        sections = with_draws(sections, collection)
    beside = [side_by_side(sections)] if "all" in asked else []
    if options.columns is not None:
        sections = with_columns(sections, options.columns)
    sections = [*sections, *beside]
    if options.by_class:
        sections = with_classes(sections, collection)
    shown = render(sections, options.format or "text")
    print(shown, end="")
    written = {} if options.output is None else _write(options.output, sections)
    _report_fonts({f"--format {options.format}": shown, **written})
    print_notes(collection.skipped)
    if options.format in (None, "text"):
        print_notes(_costs(collection))
    return OK


def _costs(collection: Collection) -> list[str]:
    """Return a note on the device time of every row, if it is known."""
    by_row = costs_of_rows(collection.runs_and_searches)
    said = [f"{label} {by_row[label].time}" for label in collection.rows if label in by_row and by_row[label].seconds]
    total = cost_text(cost_of(collection.runs_and_searches))
    return [f"{total} ({listed(said, most=20)})"] if total else []


def _print_as_domainbed(options: argparse.Namespace, methods: Sequence[str]) -> int:
    """Print what DomainBed's ``collect_results`` would print for all runs in the folders."""
    strange = [name for name in methods if name not in CHOOSE]
    if strange:
        raise InputError(f"DomainBed has no selection method {strange[0]!r}; it has {', '.join(CHOOSE)}")
    for name in ("output", "published", "compare_to", "metric", "by_class", "hparams", *ARRANGING):
        if getattr(options, name) is not None:
            raise InputError(f"--format {options.format} prints only what DomainBed prints; drop --{name}")
    read: dict[Path, Mapping[str, RecordsFile]] = {}
    for folder, sweep in ((folder, SweepFolder(folder)) for folder in options.folders):
        if not sweep.is_sweep:
            read[folder.resolve()] = read_folders(folder.resolve())
        elif (manifest := read_sweep_manifest(sweep)).by_train_envs:
            raise InputError(f"{folder} is a sweep with train_envs, for which DomainBed has no tables; drop --format")
        elif any(run.varied for run in manifest.runs):
            raise InputError(f"{folder} is a sweep with a grid, for which DomainBed has no tables; drop --format")
        elif any(run.bracket is not None for run in manifest.runs):
            raise InputError(f"{folder} is a sweep with a race, for which DomainBed has no tables; drop --format")
        else:
            read[sweep.runs] = read_files(sweep)
    files = [file for by_name in read.values() for file in by_name.values()]
    print(domainbed_tables(files, methods, latex=options.format == "domainbed_latex"), end="")
    if strange := left_out(files):
        known = "unknown to DomainBed, so its tables leave these runs out; X stands for no value"
        print_notes([f"{', '.join(strange)}: {known}; drop --format {options.format} to include them"])
    for folder, by_name in read.items():
        print_notes([*unreadable_lines(folder, by_name), *damaged_records(folder, by_name)])
    return OK


def _expect(options: argparse.Namespace) -> int:
    others = ("format", "selection", "metric", "by_class", "published", "compare_to", "hparams", "output")
    for name in (*others, *ARRANGING):
        if getattr(options, name) is not None:
            raise InputError(f"--expect prints one table, with the selection method of the sweep file; drop --{name}")
    if len(options.folders) > 1:
        raise InputError(f"--expect reads one sweep, got {len(options.folders)}; give one DIR")
    from dg_batchformer.tables.expectation import compare, is_reproduced, read_expected
    from dg_batchformer.tables.render.expectation import expectation

    expected = read_expected(SweepFolder(options.folders[0]))
    collection = collect_asked(options)
    [section] = build_sections(collection, [expected.selection])
    comparisons = compare(section, expected)
    deviations = [note for table in section.tables for note in table.conditions.about_protocols()]
    print(expectation(expected, comparisons, [*section.notes, *dict.fromkeys(deviations)]), end="")
    print_notes(collection.skipped)
    return OK if is_reproduced(comparisons) else INCOMPLETE


def _write(folder: Path, sections: Sequence[Section]) -> Mapping[str, str]:
    """Write the tables in every format; return the texts by file name."""
    from dg_batchformer.tables.published.bibliography import bibliography

    texts = {form.file: render(sections, name) for name, form in FORMATS.items()}
    if entries := bibliography(sections):
        texts["tables.bib"] = entries
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)
        print(f"wrote {folder / name}")
    return texts


def _report_fonts(documents: Mapping[str, str]) -> None:
    """Print which documents only XeLaTeX and LuaLaTeX can compile."""
    for_fonts = [name for name, text in documents.items() if needs_fonts(text)]
    if for_fonts:
        print_notes(
            [f"pdflatex cannot print some names in {' and '.join(for_fonts)}; compile with xelatex or lualatex"]
        )
