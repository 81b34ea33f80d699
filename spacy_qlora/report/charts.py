"""Small line and bar charts in SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.ticker import MaxNLocator

from spacy_qlora.report.probabilities import Bin
from spacy_qlora.training.history import Evaluation

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 28, 44

LOCATOR = MaxNLocator(5, steps=[1, 2, 5, 10])  # of the marks along an axis

Point = tuple[float, float]


class Chart:
    """Axes, to which lines and bars are added.

    title: For screen readers.  x, y: The ranges.  x_label, y_label: Under and above the axes.
    """

    def __init__(self, title: str, x: Point, y: Point, x_label: str, y_label: str) -> None:
        self._x, self._y = x, y
        self._parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">']
        for value, text in _ticks(y):
            at = self._down(value)
            self._parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
            self._parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
        for value, text in _ticks(x):
            place = f'x="{self._across(value):.1f}" y="{HEIGHT - BOTTOM + 18}"'
            self._parts.append(f'<text {place} text-anchor="middle">{text}</text>')
        self._parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{x_label}</text>')
        self._parts.append(f'<text x="0" y="13">{y_label}</text>')

    def _across(self, value: float) -> float:
        low, high = self._x
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def _down(self, value: float) -> float:
        low, high = self._y
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def line(self, style: str, points: Sequence[Point], dots: bool = True) -> None:
        """style: A class of the style sheet."""
        places = [(self._across(x), self._down(y)) for x, y in points]
        if places:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            self._parts.append(f'<path class="line {style}" d="M{path}"/>')
        if dots:
            self._parts += [f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]

    def bar(self, style: str, x: Point, y: Point) -> None:
        """x, y: From and to."""
        left, top = self._across(x[0]), self._down(y[1])
        size = f'width="{self._across(x[1]) - left - 2:.1f}" height="{self._down(y[0]) - top:.1f}"'
        self._parts.append(f'<rect class="{style}" x="{left + 1:.1f}" y="{top:.1f}" {size}/>')

    def svg(self) -> str:
        return "".join([*self._parts, "</svg>"])


def _ticks(limits: Point) -> Iterator[tuple[float, str]]:
    low, high = limits
    for value in LOCATOR.tick_values(low, high):
        if low - 1e-9 <= value <= high + 1e-9:
            yield value, f"{value:,.6g}"


def _around(values: Sequence[float]) -> Point:
    """Round limits for these values; all of 0 to 1 where they do not differ."""
    ticks = LOCATOR.tick_values(min(values), max(values))
    return (ticks[0], ticks[-1]) if len(set(values)) > 1 else (0.0, 1.0)


def histogram(bins: Sequence[Bin]) -> str:
    """Right entities on top of wrong ones."""
    most = max(each.right + each.wrong for each in bins)
    chart = Chart("Number of entities by probability, right and wrong", (0, 1), (0, most), "probability", "entities")
    for each in bins:
        chart.bar("wrong", (each.low, each.high), (0, each.wrong))
        chart.bar("right", (each.low, each.high), (each.wrong, each.wrong + each.right))
    return chart.svg()


def reliability(bins: Sequence[Bin]) -> str:
    """The share of right entities against the probability; ideally the diagonal."""
    chart = Chart("Share of right entities by probability", (0, 1), (0, 1), "probability", "share right")
    chart.line("ideal", [(0, 0), (1, 1)], dots=False)
    chart.line("f", [(each.mean, each.share) for each in bins if each.is_telling])
    return chart.svg()


def score_curves(history: Sequence[Evaluation]) -> str:
    """Precision, recall and F1 on the dev split by step, as far as they are among the scores."""
    names = {"p": "ents_p", "r": "ents_r", "f": "ents_f"}
    lines = {
        style: [(each.step, each.scores[name]) for each in history if each.scores.get(name) is not None]
        for style, name in names.items()
    }
    limits = _around([y for points in lines.values() for _, y in points] or [0])
    chart = Chart("Scores on the dev split by step", (0, history[-1].step), limits, "step", "score")
    for style, points in lines.items():
        chart.line(style, points)
    return chart.svg()


def loss_curve(history: Sequence[Evaluation]) -> str:
    """Training loss by step."""
    limits = (0, _around([0, *(each.loss for each in history)])[1])
    chart = Chart("Training loss by step", (0, history[-1].step), limits, "step", "loss (nats a word)")
    chart.line("loss", [(each.step, each.loss) for each in history])
    return chart.svg()
