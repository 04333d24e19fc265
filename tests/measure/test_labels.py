"""Labels of figures in any script: written in an installed font that can,
no warning where there is none, no formula."""
import warnings

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from contemplative_cai.measure import plot

LABELS = ["warm", "仁慈", "เมตตา", "نص", "$\\frac{", "a$b", "50 % of $ 3 $", "\u202ex", "\U000e0041", "😬", "_^{}", ""]


def drawn(labels):
    "A figure with labels at every place, and whether drawing it warned."
    figure, axes = plot.quiet_axes()
    axes.barh(labels, range(len(labels)), label=f"of {labels[0]}")
    axes.set(title=labels[0], xlabel=labels[-1])
    axes.legend()
    axes.annotate(labels[0], (0, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = plot.png(figure)
    return figure, content


@pytest.mark.parametrize("label", LABELS)
def test_any_label_is_drawn_without_a_warning(label):
    assert drawn([label, f"{label}!"])[1].startswith(b"\x89PNG")


def font_with(signs, name, folder):
    "A font file that draws a box for each of some signs."
    pen = TTGlyphPen(None)
    for move, point in (("moveTo", (0, 0)), ("lineTo", (0, 700)), ("lineTo", (700, 700)), ("lineTo", (700, 0))):
        getattr(pen, move)(point)
    pen.closePath()
    box, names = pen.glyph(), [".notdef", *(f"sign{i}" for i in range(len(signs)))]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(sign): f"sign{i}" for i, sign in enumerate(signs)})
    builder.setupGlyf(dict.fromkeys(names, box))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(folder / f"{name}.ttf")
    return folder / f"{name}.ttf"


@pytest.mark.parametrize("name, taken", [("Noto Sans CJK Test", True), ("Fancy Display", False)])
def test_a_font_that_is_installed_is_used(tmp_path, monkeypatch, name, taken):
    monkeypatch.setattr(fontManager, "ttflist", [*fontManager.ttflist])
    plot._families_for.cache_clear()
    fontManager.addfont(font_with("仁慈", name, tmp_path))
    try: figure, _ = drawn(["仁慈", "warm"])
    finally: plot._families_for.cache_clear()
    title = figure.axes[0].title
    assert (name in title.get_fontfamily()) == taken and title.get_fontfamily()[0] != name
    assert name not in figure.axes[0].get_yticklabels()[1].get_fontfamily(), "what the own font writes stays in it"
