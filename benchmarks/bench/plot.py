"""The results as a picture: a bar per row and column, relative to one loop."""

from __future__ import annotations

from html import escape

from bench.loops import REFERENCES
from bench.results import Results

COLOURS = ("#2563eb", "#f59e0b", "#9ca3af", "#84cc16", "#a855f7", "#ef4444", "#14b8a6", "#78716c")
LABELS, BARS, VALUES = 330, 450, 60  # widths: names of rows, bars, room for a number behind a bar
MOST = 2.5  # a bar that is longer is cut, its number tells
BAR, GAP, HEAD, FOOT = 11, 9, 62, 26  # heights


class Picture:
    def __init__(self) -> None:
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, **style: str) -> None:
        attributes = "".join(f' {name.replace("_", "-")}="{v}"' for name, v in style.items())
        self.parts.append(f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(words)}</text>')

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="{height:g}" fill="{colour}"/>'
        )

    def document(self, width: float, height: float) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
                f'viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" font-size="11">',
                f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
                *self.parts,
                "</svg>",
                "",
            ]
        )


def svg(results: Results) -> str:
    """Bars of each row's figure relative to the first reference that was measured."""
    reference = next(
        (name for name in REFERENCES if any(c.loop == name for c in results.columns)), None
    )
    if reference is None:
        raise ValueError("a plot needs a column of uvloop or asyncio")
    colours = dict(zip((c.label for c in results.columns), COLOURS * 9, strict=False))
    picture = Picture()
    picture.text(
        12,
        22,
        f"Cost relative to {reference}: shorter is better",
        font_size="15",
        font_weight="bold",
    )
    x = 12.0
    for label, colour in colours.items():
        picture.box(x, 35, 11, 11, colour)
        picture.text(x + 16, 45, label)
        x += 34 + 7 * len(label)
    y = float(HEAD)
    for row in results.rows:
        bars = [(c, found) for c in results.columns if (found := results.ratio(row, c, reference))]
        if not bars:
            continue
        middle = y + BAR * len(bars) / 2 + 4
        picture.text(LABELS - 10, middle, row.title, text_anchor="end")
        for column, found in bars:
            length = min(found, MOST) / MOST * BARS
            picture.box(LABELS, y, length, BAR - 1, colours[column.label])
            picture.text(LABELS + length + 4, y + BAR - 2, f"{found:.2f}", font_size="9")
            y += BAR
        y += GAP
    # The line that everything is compared with.
    picture.box(LABELS + BARS / MOST, HEAD - 4, 1, y - HEAD, "black")
    facts = ("CPU", "kernel", "taken")
    picture.text(
        12, y + 12, "; ".join(results.facts[name] for name in facts if name in results.facts)
    )
    return picture.document(LABELS + BARS + VALUES, y + FOOT)
