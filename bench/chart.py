"""A bar chart as SVG: a few lines of our own, readable in the light and in the dark."""

from __future__ import annotations

from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW, TOP = 860, 270, 70, 20, 44
OURS, THEIRS = "#2f7ed8", "#9aa5b1"


def bars(title: str, values: list[tuple[str, float]]) -> str:
    """Horizontal bars with their values; those of the filter are blue. The longest fills the width, others are to scale, down to a tenth of a
    pixel; one that is ten times the median or more is cut, and says so."""
    ordered = sorted(value for _, value in values)
    limit = min(ordered[-1], 10 * ordered[len(ordered) // 2])
    height = TOP + ROW * len(values) + 12
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
             f'<text x="12" y="24" font-size="15" fill="#1b1f24">{escape(title)}</text>']
    for index, (label, value) in enumerate(values):
        y = TOP + index * ROW
        length = (WIDTH - LEFT - RIGHT) * min(value, limit) / limit
        colour = OURS if ": filter" in label or ": gate" in label else THEIRS
        cut = " (cut)" if value > limit else ""
        lines += [f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end" fill="#1b1f24">{escape(label)}</text>',
                  f'<rect x="{LEFT}" y="{y + 2}" width="{length:.1f}" height="{ROW - 6}" fill="{colour}"/>',
                  f'<text x="{LEFT + length + 5:.1f}" y="{y + 13}" fill="#1b1f24">{value:,.0f}{cut}</text>']
    return "\n".join([*lines, "</svg>"]) + "\n"
