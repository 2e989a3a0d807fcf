#!/usr/bin/env python3
"""Draw the diagrams of README and docs, light and dark: tools/draw_figures.py [--output docs/images]"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Palette:
    """Colours of one theme."""

    text: str
    muted: str
    line: str
    box: str
    first: str
    second: str
    shade: str


PALETTES = {
    "light": Palette("#1f2328", "#59636e", "#8c959f", "#f6f8fa", "#0969da", "#bc4c00", "#ddf4ff"),
    "dark": Palette("#e6edf3", "#9198a1", "#6e7681", "#161b22", "#58a6ff", "#f0883e", "#0c2d6b"),
}


@dataclass
class Drawing:
    """An SVG under construction; coordinates are in pixels from the top left."""

    width: int
    height: int
    colours: Palette
    title: str
    parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, lines: Sequence[str], *, edge: str = "") -> None:
        """Draw a box with centred lines of text, the first one in bold."""
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{self.colours.box}" '
            f'stroke="{edge or self.colours.line}" stroke-width="1.5"/>'
        )
        top = y + height / 2 - 9 * (len(lines) - 1) + 4.5
        for place, line in enumerate(lines):
            self.text(x + width / 2, top + 18 * place, line, bold=place == 0, muted=place > 0)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        bold: bool = False,
        muted: bool = False,
        anchor: str = "middle",
        colour: str = "",
    ) -> None:
        """Write a line of text."""
        fill = colour or (self.colours.muted if muted else self.colours.text)
        size, weight = (13 if muted else 14), (600 if bold else 400)
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
            f'text-anchor="{anchor}">{escape(text)}</text>'
        )

    def arrow(self, points: Sequence[tuple[float, float]], *, colour: str = "", dashed: bool = False) -> None:
        """Draw a line through points that ends in an arrow head."""
        colour = colour or self.colours.line
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        (x0, y0), (x1, y1) = points[-2:]
        angle = math.atan2(y1 - y0, x1 - x0)
        wings = [(x1 - 9 * math.cos(angle + turn), y1 - 9 * math.sin(angle + turn)) for turn in (0.45, -0.45)]
        head = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(x1, y1), *wings])
        self.parts.append(f'<polygon points="{head}" fill="{colour}"/>')

    def line(self, points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> None:
        """Draw a line through points."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')

    def svg(self) -> str:
        """Return the drawing as the text of an SVG file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img" font-family="system-ui, -apple-system, Segoe UI, sans-serif">'
        )
        return "\n".join([head, f"<title>{escape(self.title)}</title>", *self.parts, "</svg>", ""])


def data_flow(colours: Palette) -> Drawing:
    """Draw the steps from a sweep file to a table."""
    drawing = Drawing(926, 190, colours, "From a sweep file to a table")
    stations = [
        ("sweep file", "sweeps/pacs.yaml"),
        ("runs", "method × domain × trial"),
        ("workers", "laptop, GPUs, SLURM"),
        ("records", "runs/ID/results.jsonl"),
        ("table, report", "selection, statistics"),
    ]
    steps = ["expand", "launch", "train", "collect"]
    width, gap = 156, 34
    for place, lines in enumerate(stations):
        x = 4 + place * (width + gap)
        drawing.box(x, 56, width, 62, lines, edge=colours.first if place in (0, 4) else "")
        if place < len(steps):
            drawing.arrow([(x + width + 3, 87), (x + width + gap - 3, 87)])
            drawing.text(x + width + gap / 2, 46, steps[place], muted=True)
    middle = 4 + 2 * (width + gap) + width / 2
    drawing.arrow([(middle + 40, 122), (middle + 40, 150), (middle - 40, 150), (middle - 40, 122)], dashed=True)
    drawing.text(middle, 172, "killed or preempted: resume from the checkpoint, bit-exactly", muted=True)
    return drawing


def twin_streams(colours: Palette) -> Drawing:
    """Draw BatchFormer: plain and attended features share one classifier."""
    drawing = Drawing(920, 300, colours, "BatchFormer: plain and attended features share one classifier")
    drawing.box(4, 112, 150, 76, ("mini-batch", "n images per domain"))
    drawing.arrow([(157, 150), (201, 150)])
    drawing.box(204, 112, 130, 76, ("featurizer", "runs once"))
    drawing.arrow([(337, 150), (372, 150), (372, 70), (616, 70)], colour=colours.first)
    drawing.text(494, 58, "plain features z", colour=colours.first)
    drawing.arrow([(372, 150), (372, 226), (409, 226)], colour=colours.second)
    drawing.box(412, 186, 170, 80, ("BatchFormer", "samples attend", "to each other"), edge=colours.second)
    drawing.arrow([(585, 226), (616, 226)], colour=colours.second)
    drawing.text(497, 288, "in training only; removed at test time", muted=True)
    drawing.box(619, 36, 130, 228, ("classifier", "shared by both", "streams"))
    drawing.arrow([(752, 70), (788, 70)], colour=colours.first)
    drawing.arrow([(752, 226), (788, 226)], colour=colours.second)
    drawing.box(791, 44, 125, 52, ("loss", "(1 - w)"), edge=colours.first)
    drawing.box(791, 200, 125, 52, ("loss", "w"), edge=colours.second)
    return drawing


def loss_valley(colours: Palette) -> Drawing:
    """Draw SWAD: weights are averaged from the convergence of the validation loss to its rise."""
    drawing = Drawing(920, 300, colours, "SWAD averages weights over the valley of the validation loss")
    left, right, top, bottom = 60, 900, 24, 250

    def loss(share: float) -> float:
        return 0.92 * math.exp(-9 * share) + 0.16 + 0.75 * max(0.0, share - 0.62) ** 1.35 + 0.022 * math.sin(47 * share)

    def place(share: float, value: float) -> tuple[float, float]:
        return left + share * (right - left), bottom - value * (bottom - top) * 0.92

    start, end, threshold = 0.26, 0.80, 0.27
    begin, stop = place(start, 0)[0], place(end, 0)[0]
    drawing.parts.append(
        f'<rect x="{begin:.1f}" y="{top}" width="{stop - begin:.1f}" height="{bottom - top}" fill="{colours.shade}"/>'
    )
    drawing.line([place(step / 200, loss(step / 200)) for step in range(201)], colours.first)
    drawing.line([place(start, threshold), place(1.0, threshold)], colours.second, dashed=True)
    drawing.text(right, place(0, threshold)[1] + 20, "threshold", anchor="end", colour=colours.second)
    drawing.line([(left, top), (left, bottom), (right, bottom)], colours.line)
    drawing.text(left + 10, top + 14, "validation loss", anchor="start")
    drawing.text(right, bottom + 22, "updates", anchor="end")
    drawing.text((begin + stop) / 2, top + 18, "weights averaged here", bold=True)
    drawing.text(begin, bottom + 22, "converged", muted=True)
    drawing.text(stop, bottom + 22, "rises above the threshold", muted=True)
    return drawing


DRAWINGS: dict[str, Callable[[Palette], Drawing]] = {
    "data-flow": data_flow,
    "batchformer": twin_streams,
    "swad": loss_valley,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", help="folder (default: %(default)s)")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        for theme, colours in PALETTES.items():
            (output / f"{name}-{theme}.svg").write_text(draw(colours).svg())


if __name__ == "__main__":
    main()
