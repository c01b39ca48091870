"""A figure's line says all that run_all needs, whatever is in its name, and the exit code follows from the figures."""

from __future__ import annotations

import math

import pytest
from ab import Comparison, Timing
from figures import Figure, read_figures, report, skip

FIGURES = [
    Figure(name="stage / bare forward", value=1.034, limit=0.9, goal=0.97, spread=(1.022, 1.083)),
    Figure(name="five annotators / one, cost", value=1.3, limit=1.2, at_most=True),
    Figure(name="a row among 5,000 / among 500, cost", value=0.8164, limit=1.2, at_most=True, spread=(0.8, 1.3)),
    Figure(name="engine, a shard by 16 processes", value=7.22, unit="ms", limit=10, at_most=True),
    Figure(name="stream (S3): of 2 processes", value=12345, unit="rows/s", spread=(1e-5, 20000)),
    Figure(name="greatest difference", value=4.17e-7, limit=1e-4, at_most=True),
    Figure(name="two GPUs / one", reason="2 GPUs wanted, 0 here: none"),
    Figure(name="broken", value=math.inf, limit=1),
]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_is_read_again_as_it_was_reported(figure):
    assert read_figures(f"figure of speech = 3\n{figure}\nstage / bare forward throughput: wall 0.9") == [figure]


def test_every_figure_of_a_print_is_read_in_order():
    assert read_figures("\n".join(["load 1.2", *map(str, FIGURES), ""])) == FIGURES


@pytest.mark.parametrize(
    ("value", "at_most", "verdict"),
    [(0.9, False, "pass"), (0.8994, False, "FAIL"), (0.9, True, "pass"), (0.9006, True, "FAIL"),
     (0.89999, False, "pass"), (math.nan, False, "FAIL"), (math.nan, True, "FAIL")],
)  # fmt: skip
def test_a_limit_is_judged_by_the_value_as_it_is_printed(value, at_most, verdict):
    figure = Figure(name="some", value=value, limit=0.9, at_most=at_most)
    assert figure.verdict == verdict
    assert str(figure).endswith(f": {verdict}")


def test_the_exit_code_is_1_only_if_a_limit_is_missed(capsys):
    missed_goal = Figure(name="a", value=0.95, limit=0.9, goal=0.97)
    assert report([missed_goal, Figure(name="b", value=0.0), Figure(name="c", reason="no GPU")]) == 0
    assert report([missed_goal, Figure(name="d", value=0.8, limit=0.9)]) == 1
    assert capsys.readouterr().out.count("figure: ") == 5


def test_a_bench_that_can_measure_nothing_ends_with_its_reason(capsys):
    with pytest.raises(SystemExit) as ended:
        skip("no images (set WSOLPIPE_SHARED)")
    assert ended.value.code == 0
    (figure,) = read_figures(capsys.readouterr().out)
    assert (figure.verdict, figure.reason) == ("skip", "no images (set WSOLPIPE_SHARED)")


def comparison():
    """B takes 2, 1 and 4/3 times as long by the clock, and half as long on the processor."""
    return Comparison(
        tuple(Timing(1.0, 1.0) for _ in range(3)), (Timing(2.0, 0.5), Timing(1.0, 0.5), Timing(4 / 3, 0.5))
    )


def test_a_comparisons_spread_is_of_the_clock_and_direction_of_its_figure():
    wall = comparison().figure("b / a", "wall", limit=0.7)
    assert (wall.value, wall.spread, wall.verdict) == (0.75, (0.5, 1.0), "pass")
    cost = comparison().figure("b / a, cost", "wall", limit=1.3, cost=True)
    assert (cost.value, cost.spread, cost.verdict) == (4 / 3, (1.0, 2.0), "FAIL")
    assert comparison().figure("b / a", "cpu").spread == (2.0, 2.0)
    halved = comparison().figure("b / a", "wall", times=0.5)
    assert (halved.value, halved.spread) == (0.375, (0.25, 0.5))


def test_of_several_clocks_the_worst_one_counts():
    assert comparison().figure("b / a", "cpu", "wall").value == 0.75


def test_rates_are_shown_and_not_judged():
    a, b = comparison().rates(a="bare", b="stage", items=12)
    assert (a.value, b.value, b.spread, b.verdict) == (12.0, 9.0, (6.0, 12.0), "shown")
