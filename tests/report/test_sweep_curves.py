"""CS against LC on the page of a sweep: means and deviations over seeds."""

from statistics import fmean, stdev

import pytest
from support.html_pages import check, read
from support.run_folders import make_full_run

from cwx.report.run import read_runs
from cwx.report.sweep_axes import sweep_points, swept_axes
from cwx.report.sweep_curves import level_curves
from cwx.report.sweep_page import write_report

# CS1 in the second bin, by adversary and seed.
CS1 = {"ensemble": (0.5, 0.6, 0.8), "ensemble_linf": (0.7, 0.7, 0.9)}


def rows(network, cs1, *, bins=4, filled=(1, 3), noise=True):
    measures = {"cs1": cs1, "cs1_std": 0.1, "cs1_se": 0.02, "cs2": 1 - cs1, "cs2_permuted": 0.3}
    if noise:
        measures["cs1_noise"] = 0.95
    return [
        {
            "network": network,
            "lc": (index + 0.5) / bins,
            "from": index / bins,
            "to": (index + 1) / bins,
            "neurons": 10 * index,
            **measures,
        }
        for index in filled
    ]


def make_run(folder, *, adversary="ensemble", seed=0, table=None):
    return make_full_run(
        folder,
        experiment="cifar10/neurons",
        overrides=[f"adversary={adversary}", f"experts.seeds=[{seed}]"],
        choices={"adversary": adversary},
        settings={"experts": {"seeds": [seed]}},
        metrics={"neurons/expert/cs1": 0.5 + seed / 10},
        tables={} if table is None else {"neurons_curve": table},
        sources={},
    )


def make_sweep(folder):
    for adversary, values in CS1.items():
        for seed, value in enumerate(values):
            # The third seed has no neurons in the last bin.
            filled = (1, 3) if seed < 2 else (1,)
            table = rows("fine-tuned", 0.9) + rows("expert", value, filled=filled)
            make_run(folder / f"{adversary}{seed}", adversary=adversary, seed=seed, table=table)


def curves(folder):
    runs = read_runs([folder])
    axes = swept_axes(runs)
    return level_curves(sweep_points(runs, axes)[1], axes)


def cells(table, network, measure):
    return {
        row[2].text: [cell.text for cell in row[3:]]
        for row in table.rows
        if (row[0].text, row[1].text) == (network, measure)
    }


def test_the_table_has_means_and_deviations_over_seeds(tmp_path):
    make_sweep(tmp_path)
    (table,) = curves(tmp_path).tables
    assert [column.name for column in table.columns[3:]] == [
        "adversary ensemble",
        "adversary ensemble_linf",
    ]
    expected = [f"{fmean(values):.4g} ± {stdev(values):.2g}" for values in CS1.values()]
    found = cells(table, "expert", "CS₁ (true class)")
    assert found["0.25 to 0.5"] == expected
    assert found["0.75 to 1"] == ["0.55 ± 0.071 (2 of 3)", "0.7 ± 0 (2 of 3)"]
    assert cells(table, "expert", "neurons of the bin")["0.25 to 0.5"] == ["10 ± 0"] * 2
    assert (
        cells(table, "fine-tuned", "CS₁, noise of the same norm")["0.75 to 1"] == ["0.95 ± 0"] * 2
    )
    assert [row[0].text for row in table.rows] == ["expert"] * 10 + ["fine-tuned"] * 10


def test_each_measure_of_each_network_has_a_chart_with_a_line_per_adversary(tmp_path):
    make_sweep(tmp_path)
    charts = {chart.title: chart for chart in curves(tmp_path).charts}
    measures = (
        "CS₁ (true class)", "CS₂ (target class)", "CS₂, permuted classes",
        "CS₁, noise of the same norm", "neurons of the bin",
    )  # fmt: skip
    assert list(charts) == [f"{n}: {m}" for n in ("expert", "fine-tuned") for m in measures]
    chart = charts["expert: CS₁ (true class)"]
    assert [label for label, _ in chart.legend] == [
        "adversary ensemble",
        "adversary ensemble_linf",
    ]
    assert "adversary ensemble 0.633 at 0.375, 0.55 at 0.875" in chart.description
    assert "± the sample standard deviation over runs that differ only in seeds" in chart.note


def test_the_page_shows_the_charts_and_the_table(tmp_path):
    make_sweep(tmp_path)
    page = read(write_report([tmp_path]).read_text())
    check(page)
    assert "Neurons against LC" in [title.text for title in page.all("h2")]
    captions = [t.all("caption")[0].text for t in page.all("table") if t.all("caption")]
    assert any(caption.startswith("CS₁ and CS₂ against LC, by network") for caption in captions)


def test_runs_that_differ_in_seeds_alone_are_one_line(tmp_path):
    for seed, value in enumerate(CS1["ensemble"]):
        make_run(tmp_path / str(seed), seed=seed, table=rows("expert", value))
    found = curves(tmp_path)
    assert cells(found.tables[0], "expert", "CS₁ (true class)")["0.25 to 0.5"] == ["0.6333 ± 0.15"]
    assert all(len(chart.legend) == 1 for chart in found.charts)


def test_runs_without_common_bins_are_left_out_and_counted(tmp_path):
    make_sweep(tmp_path)
    make_run(tmp_path / "other bins", seed=7, table=rows("expert", 0.1, bins=5))
    make_run(tmp_path / "no table", seed=8)
    old = [{"network": "expert", "lc": 0.3, "neurons": 4, "cs1": 0.2}]
    make_run(tmp_path / "bins of its own", seed=9, table=old)
    (table,) = curves(tmp_path).tables
    assert cells(table, "expert", "CS₁ (true class)")["0.25 to 0.5"][0].startswith("0.6333 ±")
    assert "1 runs with other bins are left out." in table.note


@pytest.mark.parametrize("count", [0, 1])
def test_a_curve_of_one_run_is_on_its_own_page(tmp_path, count):
    for index in range(2):
        table = rows("expert", 0.5) if index < count else None
        make_run(tmp_path / str(index), seed=index, table=table)
    assert not curves(tmp_path).charts
    assert not curves(tmp_path).tables


def test_a_damaged_table_does_not_hide_the_others(tmp_path):
    make_sweep(tmp_path)
    damaged = rows("expert", 0.5)
    damaged[0]["from"] = "x"
    make_run(tmp_path / "damaged", seed=9, table=damaged)
    runs = read_runs([tmp_path])
    axes = swept_axes(runs)
    (table,) = level_curves(sweep_points(runs, axes)[1], axes).tables
    assert cells(table, "expert", "CS₁ (true class)")["0.25 to 0.5"][0].startswith("0.6333 ±")
    errors = [error for run in runs for error in run.read_errors]
    assert len(errors) == 1
    assert "neurons_curve.csv cannot be read (ValueError" in errors[0]
