"""Do the pictures show the records, legibly: bars that add up, points under the roof, labels that do not overlap?"""

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection

import accelsim
from accelsim import cli, ledger
from accelsim.errors import OutputError
from accelsim.study import plots
from accelsim.study.export import provenance
from accelsim.study.results import frame, summarize
from accelsim.workload.lowering import PASSES

RUN = ["run", "--config", "dadiannao.yaml", "--trace", "tiny.npz", "--baseline", "none", "--quiet"]
PICTURES = ["cycles-dense", "cycles-swat80", "roofline", "speedup"]


@pytest.fixture(scope="module")
def machine():
    return accelsim.load_machine("pe16x16.yaml")


@pytest.fixture(scope="module")
def table(tiny, machine):
    """The tiny trace on a machine, and on another that is not to be seen."""
    with accelsim.open_trace(tiny) as trace:
        return accelsim.simulate([machine, accelsim.load_machine("dadiannao.yaml")], trace)


def as_large_as_resnet50(table):
    """The table with the names of 53 layers and more."""
    copies = [table.assign(layer=f"layer{n // 10}.{n}.downsample." + table["layer"]) for n in range(11)]
    return pd.concat(copies, ignore_index=True)


def origin_of(trace_file, machine):
    with accelsim.open_trace(trace_file) as trace:
        return provenance(trace, [machine], ["accelsim", "run"])


def bars(axes):
    """By group, the ends of each layer's box: (layers, 2)."""
    boxes = [c for c in axes.collections if isinstance(c, PolyCollection) and not c.get_label().startswith("_")]
    return {c.get_label(): np.array([path.vertices[:2, 0] for path in c.get_paths()]) for c in boxes}


def test_the_bars_of_a_layer_add_up_to_its_cycles(table, machine):
    rows = table[(table["machine"] == "pe16x16") & (table["snapshot"] == "swat80")]
    figure = plots.cycles_by_cause(rows, "t")
    assert len(figure.axes) == len(PASSES)
    for which, axes in zip(PASSES, figure.axes, strict=True):
        cycles = rows[rows["pass"] == which]["cycles"].to_numpy()
        ends = bars(axes)
        assert np.allclose(sum(box[:, 1] - box[:, 0] for box in ends.values()), cycles)
        assert np.allclose(np.max([box[:, 1] for box in ends.values()], axis=0), cycles)
        assert axes.get_xlim()[1] >= cycles.max()


def test_every_cause_is_in_a_bar_of_its_own_look():
    shown = plots.bars()
    assert [cause.name for causes in shown.values() for cause in causes] == list(ledger.names("slots"))
    assert len({bar.label for bar in shown}) == len({(bar.fill, bar.hatch, bar.ink) for bar in shown}) == len(shown) > 9


def lightness(colour):
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_bars_without_a_hatch_differ_in_greyscale():
    plain = sorted(lightness(bar.fill) for bar in plots.bars() if not bar.hatch)
    assert len(plain) >= 3 and all(b - a > 40 for a, b in pairwise(plain))
    for bar in plots.bars():
        inks = {"white": "#ffffff", "black": "#000000"}
        assert not bar.hatch or abs(lightness(bar.fill) - lightness(inks.get(bar.ink, bar.ink))) > 80


def test_points_are_the_records_and_lie_under_the_roof(table, machine):
    rows = table[table["machine"] == "pe16x16"]
    figure = plots.roofline(rows, machine, "t")
    axes = figure.axes[0]
    points = np.concatenate([c.get_offsets() for c in axes.collections])
    counted = rows[rows["effectual_slots"] > 0]
    assert len(points) == len(counted) + 6
    moved = counted["offchip_read_bytes"] + counted["offchip_write_bytes"]
    expected = zip(counted["effectual_slots"] / moved, counted["effectual_slots"] / counted["cycles"], strict=True)
    assert {tuple(np.round(p, 9)) for p in expected} <= {tuple(np.round(p, 9)) for p in points}
    assert (points[:, 1] <= machine.accelerator.multipliers).all()
    x, roof = axes.lines[0].get_data()
    whole = points[-6:]
    assert (whole[:, 1] <= np.interp(whole[:, 0], x, roof) * 1.001).all()
    assert roof.max() == machine.accelerator.multipliers
    offchip = machine.memory.offchip
    rate = offchip.channels * offchip.megabytes_per_second / machine.clock_mhz
    assert np.isclose(roof[0] / x[0], min(rate, roof.max() / x[0]))


def test_a_roof_without_bandwidth_is_flat(table, machine):
    offchip = machine.memory.offchip.model_copy(update={"megabytes_per_second": 0})
    unlimited = machine.model_copy(update={"memory": machine.memory.model_copy(update={"offchip": offchip})})
    roof = plots.roofline(table[table["machine"] == "pe16x16"], unlimited, "t").axes[0].lines[0].get_ydata()
    assert set(roof) == {machine.accelerator.multipliers}


def test_speedups_are_those_of_the_summary(table, tiny):
    """Layer by layer, as a summary of that layer alone has it."""
    rows = table[table["machine"] == "pe16x16"]
    gains = plots.speedups(rows)
    assert len(gains) == 14
    for _, gain in gains.iterrows():
        summary = summarize(rows[rows["layer"] == gain["layer"]], "pe16x16")
        assert gain["speedup"] == summary.speedup[1][gain["pass"]]
        assert gain["fewer"] == summary.fewer_effectual[1][gain["pass"]]


def boxes_of_texts(figure):
    """Where each text that is seen lies."""
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            texts += [t.label1 for t in ticks if low <= t.get_loc() <= high and t.label1.get_visible()]
    return [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]


@pytest.mark.parametrize("large", [False, True])
def test_labels_do_not_overlap_nor_leave_the_picture(table, machine, large):
    table = as_large_as_resnet50(table) if large else table
    with matplotlib.style.context(["default", plots.STYLE]):
        figures, _ = plots.draw(table, machine, "a machine, a network on a set")
        for figure in figures.values():
            figure.draw_without_rendering()
            boxes = boxes_of_texts(figure)
            width, height = figure.bbox.width, figure.bbox.height
            for number, (text, box) in enumerate(boxes):
                assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
                assert [other for other, its in boxes[:number] if box.overlaps(its)] == [], text


def test_pictures_are_png_and_svg_and_the_same_each_time(table, machine, tiny, tmp_path):
    origin = origin_of(tiny, machine)
    for folder in ("a", "b"):
        assert plots.write_plots(tmp_path / folder, table, machine, origin) == []
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(
        f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")
    )
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
            assert origin["trace"]["sha256"] in path.read_text(encoding="utf-8")
        else:
            assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def test_settings_of_the_user_do_not_count(table, machine, tiny, tmp_path):
    table = table[(table["layer"] == "conv1") & (table["pass"] == "fwd")]
    origin = origin_of(tiny, machine)
    plots.write_plots(tmp_path / "a", table, machine, origin)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        plots.write_plots(tmp_path / "b", table, machine, origin)
    assert (tmp_path / "a" / "roofline.svg").read_bytes() == (tmp_path / "b" / "roofline.svg").read_bytes()


@pytest.mark.parametrize(
    ("choice", "missing"),
    [
        ({"layer": ["conv1"]}, None),
        ({"layer": ["fc"]}, None),
        ({"pass": ["fwd"]}, None),
        ({"layer": ["conv1"], "pass": ["input_grad"]}, "speedup"),
        ({"snapshot": ["swat80"]}, "speedup"),
        ({"snapshot": ["dense"]}, "speedup"),
    ],
)
def test_what_there_is_is_drawn(table, machine, tiny, tmp_path, choice, missing):
    """One layer, only a linear one, one pass, no work at all, no dense snapshot to compare with."""
    for column, values in choice.items():
        table = table[table[column].isin(values)]
    notes = plots.write_plots(tmp_path / "p", table, machine, origin_of(tiny, machine))
    names = {path.stem for path in (tmp_path / "p").iterdir()}
    assert [missing in note for note in notes] == ([True] if missing else [])
    assert names == {n for n in PICTURES if n != missing and n.partition("-")[2] in ("", *table["snapshot"])}


def test_without_a_memory_there_is_no_roofline(table, machine):
    figures, notes = plots.draw(table, machine.model_copy(update={"memory": None}), "t")
    assert "roofline" not in figures and notes == ["no roofline: the machine has no memory"]


def test_names_of_any_kind_are_drawn(table, machine, tiny, tmp_path, recwarn):
    """A trace is untrusted: its names may be formulas, paths, long, or of another script."""
    names = {"dense": "../a/$x^2$", "swat80": "../a/$x_2$"}
    odd = table.replace({"snapshot": names, "layer": {"conv1": "$\\frac{1", "fc": "層" * 90}})
    plots.write_plots(tmp_path / "p", odd, machine, origin_of(tiny, machine))
    assert len(list((tmp_path / "p").iterdir())) == 8 and list(tmp_path.iterdir()) == [tmp_path / "p"]
    assert [str(w.message) for w in recwarn] == []


def test_the_program_writes_them_and_says_what_it_could_not_draw(tmp_path, tiny, monkeypatch, capfd):
    (tmp_path / "tiny.npz").write_bytes(tiny.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert cli.main([*RUN, "--plots", "a/b", "--snapshots", "swat80", "--layers", "fc"]) == 0
    assert "no picture of speedups" in capfd.readouterr().out
    assert {path.name for path in (tmp_path / "a" / "b").glob("*.png")} == {"cycles-swat80.png", "roofline.png"}
    assert cli.main([*RUN, "--plots", "tiny.npz"]) == 2
    assert "must be a folder" in capfd.readouterr().err


def test_an_unwritable_folder_is_an_error_and_leaves_nothing(table, machine, tiny, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError):
        plots.write_plots(tmp_path / "file", table, machine, origin_of(tiny, machine))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_an_empty_choice_of_records_is_no_picture_of_nothing(machine):
    assert plots.speedups(frame([])).empty
