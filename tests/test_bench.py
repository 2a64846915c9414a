"""The benchmark suite at toy size: every job runs and is told from its target; how fast is not tested."""

from datetime import date

import pytest
from conftest import REPOSITORY
from matplotlib.image import imread

from benchmarks import __main__ as bench
from benchmarks import growth, quality, report
from benchmarks.imports import first_imports
from benchmarks.table import Row, alternate, number
from oodlib.presets import make_settings

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

NOTEBOOKS = sorted(path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def rows(one_thread):
    return bench.measure(bench.JOBS, toy=True)


def row(value, target=2, unit="x", **options):
    return Row("a job", "1 s", "peer: 2 s", value, target, unit, **options)


def grown(*seconds, own=1):
    return growth.Growth(growth.Job("a job", "images", own, (10, 20, 40)[: len(seconds)], len), seconds)


SCORES = ("MSP", "energy", "Mahalanobis", "RMDS", "GEN", "ViM", "KNN")


def test_every_job_has_its_rows(rows):
    assert [r.job for r in rows] == [
        "metrics of 360 scores (scikit-learn)",
        "metrics of 360 scores (pytorch-ood)",
        "metrics of 600 scores (scikit-learn)",
        "metrics of 600 scores (pytorch-ood)",
        *(
            job
            for d in (8, 16)
            for job in (*(f"{score} scores, 100 x {d}" for score in SCORES), f"all 11 scores, 100 x {d}")
        ),
        "explorer, 8 digits images",
        "explorer, a 32 x 32 RGB image",
        "denoiser training, digits",
        "denoiser training, 32 x 32 RGB",
        "drawing digits",
        "detector training, ResNet-18",
        "detector training, ResNet-50",
        "import oodlib",
        *(f"imports of {name}" for name in NOTEBOOKS),
        "make demo",
    ]


def test_the_targets_are_those_that_were_set(rows):
    assert [report.wanted(r) for r in rows if not r.job.startswith("import")] == [
        *(
            "6x",
            "2x",
            "14x",
            "2x",
            *2 * ("1x", "1x", "10x", *4 * ("1x",), "at most 1.5x"),
            "at most 35 ms",
            "at most 70 ms",
        ),
        *("1.5x", "2x", "120x"),
        *("2.5x", "4.5x", "at most 4 min"),
    ]
    assert {report.wanted(r) for r in rows if r.job.startswith("import")} == {"at most 1.3x"}


def test_the_report_holds_machine_table_and_figure(rows, tmp_path):
    report.write(rows, [grown(1, 2)], tmp_path)
    text = (tmp_path / "results" / "bench.md").read_text()
    assert report.machine() in text and report.table(rows) in text and growth.line(grown(1, 2)) in text
    height, width, _ = imread(tmp_path / "figures" / "bench.png").shape
    assert width > height > 300


def test_the_machine_is_described_by_cores_versions_and_day():
    assert all(
        word in report.machine() for word in ("cores", "PyTorch", "Python", f"{date.today():%d %B %Y}")
    )


def test_one_job_alone_is_printed_and_nothing_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bench.main(["--only", "scores", "--toy"])
    assert capsys.readouterr().out.count("| Mahalanobis scores") == 2
    assert list(tmp_path.iterdir()) == []


def test_the_whole_suite_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "measure", lambda jobs, toy: [row(1)])
    monkeypatch.setattr(growth, "measure", lambda toy: [grown(1, 2)])
    bench.main([])
    assert (tmp_path / "results" / "bench.md").is_file() and (tmp_path / "figures" / "bench.png").is_file()


def test_a_row_at_its_target_is_met():
    assert row(2).verdict == "met"
    assert row(35, 35, "ms", at_most=True).verdict == "met"


def test_a_row_that_misses_says_by_how_much():
    assert row(1.5).verdict == "below target by 25 %"
    assert row(50, 40, "ms", at_most=True).verdict == "below target by 20 %"


def test_worse_quality_misses_at_any_speed():
    assert row(100, fault="worse quality").verdict == "below target: worse quality"


def test_the_table_says_value_and_aim_and_why_a_row_misses_at_any_speed():
    expected = "| a job | 1 s | peer: 2 s | 1.5x | 2x | worse quality; of two |"
    assert report.table([row(1.5, note="of two", fault="worse quality")]).splitlines()[-1] == expected


def test_every_growth_is_measured_and_has_a_line():
    found = list(growth.measure(toy=True))
    assert [f.job.name for f in found] == [job.name for job in growth.JOBS]
    assert all(len(f.seconds) == 2 and min(f.seconds) > 0 for f in found)
    assert growth.table(found).count("\n") == len(found) + 1


@pytest.mark.parametrize(
    ("power", "verdict"), [(0, "too little to tell"), (1, "as the work"), (2, "faster than the work")]
)
def test_the_exponent_is_the_power_by_which_time_grows(power, verdict):
    found = grown(*(3 * 2.0 ** (power * i) for i in range(3)))
    assert found.exponent == pytest.approx(power, abs=1e-9) and found.verdict == verdict


def test_the_exponent_is_that_of_the_two_largest_sizes():
    assert grown(1, 1, 2).exponent == pytest.approx(1)


def test_a_line_has_sizes_times_and_exponents():
    expected = "| a job | images | 10 → 20 | 10 ms → 20 ms | 1.00 | 1 | as the work |"
    assert growth.line(grown(0.01, 0.02)) == expected


def test_growth_alone_is_printed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(growth, "measure", lambda toy: [grown(1, 2)])
    bench.main(["--only", "growth", "--toy"])
    assert growth.line(grown(1, 2)) in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_a_figure_draws_the_jobs_that_others_do_too():
    figure = report.chart([row(3), row(0.5), row(30, unit="ms", at_most=True)])
    dots = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert dots == [3, 0.5]
    assert figure.get_suptitle() == "oodlib is faster in 1 of 2 jobs that other code does too"


def test_a_figure_says_why_a_fast_job_is_no_gain():
    axes = report.chart([row(100, fault="worse quality")]).axes[0]
    assert axes.texts[0].get_text() == "100x peer, worse quality"


def test_ways_are_timed_in_turn_after_once_each():
    done = []
    seconds = alternate(2, lambda: done.append("a"), lambda: done.append("b"))
    assert "".join(done) == "ababab" and len(seconds) == 2


@pytest.mark.parametrize("value, text", [(1234.5, "1234"), (12.34, "12.3"), (1.5, "1.5"), (0.01234, "0.012")])
def test_numbers_have_three_digits_at_most_after_the_first(value, text):
    assert number(value) == text


def test_a_notebooks_first_imports_are_found_below_its_magics():
    lines = first_imports(REPOSITORY / "notebooks" / "01_train_ddpm.ipynb").splitlines()
    assert lines[0] == "from oodlib.notebook import parameters, table"
    assert "from oodlib.diffusion.denoiser import Denoiser" in lines and "import numpy as np" in lines


def test_samples_of_a_longer_training_have_a_row_of_their_own_beside_validation_images():
    settings = make_settings(denoiser_batch_size=16, block_out_channels=[8, 16], committee_epochs=2)
    real, *trained = quality.rows(settings, [1, 3], samples=100)
    assert [row["steps"] for row in trained] == [1, 3] and all(row["seconds"] > 0 for row in trained)
    assert real["accuracy"] > max(row["accuracy"] for row in trained)
    assert real["frechet"] < min(row["frechet"] for row in trained)
