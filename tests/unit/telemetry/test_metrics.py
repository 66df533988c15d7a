"""The text format, line by line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from lockgate.telemetry.metrics import MOST_SERIES, GenAI, Registry, render


def test_a_counter_shows_each_set_of_labels() -> None:
    registry = Registry()
    calls = registry.counter("calls_total", "Calls.", ["model", "status"])
    calls.add(1, "m", "200")
    calls.add(2.5, "m", "500")
    assert registry.render() == (
        "# HELP calls_total Calls.\n# TYPE calls_total counter\n"
        'calls_total{model="m",status="200"} 1\ncalls_total{model="m",status="500"} 2.5\n'
    )


def test_a_histogram_counts_cumulatively_and_a_bound_belongs_to_its_bucket() -> None:
    registry = Registry()
    seconds = registry.histogram("s", "Seconds.", buckets=[0.1, 1.0])
    for value in (0.05, 0.1, 0.5, 3.0):
        seconds.observe(value)
    assert registry.render().splitlines()[2:] == [
        's_bucket{le="0.1"} 2',
        's_bucket{le="1"} 3',
        's_bucket{le="+Inf"} 4',
        "s_sum 3.65",
        "s_count 4",
    ]


def test_label_values_and_help_are_escaped() -> None:
    registry = Registry()
    registry.gauge("g", "a\\b\nc", ["x"]).set(1, 'say "hi"\n\\')
    assert registry.render() == '# HELP g a\\\\b\\nc\n# TYPE g gauge\ng{x="say \\"hi\\"\\n\\\\"} 1\n'


def test_processes_add_up() -> None:
    snapshots = []
    for seconds in (0.3, 3.0):
        registry = Registry()
        gen_ai = GenAI(registry)
        gen_ai.operation_seconds.observe(seconds, "chat", "openai", "m", "")
        gen_ai.cost_usd.add(0.25, "prod", "a", "m")
        snapshots.append(registry.snapshot())
    text = render(snapshots)
    labels = 'gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="m",error_type=""'
    assert f"gen_ai_client_operation_duration_seconds_count{{{labels}}} 2\n" in text
    assert f'gen_ai_client_operation_duration_seconds_bucket{{{labels},le="0.32"}} 1\n' in text
    assert 'lockgate_cost_usd_total{environment="prod",agent="a",gen_ai_request_model="m"} 0.5\n' in text


def test_two_shapes_of_one_metric_are_refused() -> None:
    one, other = Registry(), Registry()
    one.counter("c_total", "C.", ["a"])
    other.counter("c_total", "C.", ["b"])
    with pytest.raises(ValueError, match="c_total"):
        render([one.snapshot(), other.snapshot()])


def test_a_name_is_defined_once_and_labels_must_fit() -> None:
    registry = Registry()
    counter = registry.counter("c_total", "C.", ["a"])
    with pytest.raises(ValueError, match="already"):
        registry.gauge("c_total", "C.")
    with pytest.raises(TypeError, match="labels"):
        counter.add(1)


def test_callers_that_name_ever_more_models_do_not_fill_the_memory() -> None:
    registry = Registry()
    calls = registry.counter("calls_total", "Calls.", ["environment", "model"])
    for number in range(MOST_SERIES + 50):
        calls.add(1, "prod", f"model-{number}")
    calls.add(5, "prod", "model-7")
    shown = registry.render().splitlines()
    assert len(shown) == 2 + MOST_SERIES + 1
    assert 'calls_total{environment="other",model="other"} 50' in shown
    assert 'calls_total{environment="prod",model="model-7"} 6' in shown


def test_a_series_found_once_counts_in_the_metric_and_shows_when_something_was_noted() -> None:
    registry = Registry()
    calls = registry.counter("calls_total", "Calls.", ["model"])
    seconds = registry.histogram("s", "Seconds.", ["model"], buckets=[1.0])
    counts, observations = calls.series("m"), seconds.series("m")
    calls.series("never")
    seconds.series("never")
    counts.add()
    counts.add(2)
    observations.observe(0.5)
    calls.add(1, "m")
    seconds.observe(2.0, "m")
    shown = registry.render()
    assert 'calls_total{model="m"} 4\n' in shown
    assert 's_bucket{model="m",le="1"} 1\n' in shown
    assert 's_count{model="m"} 2\n' in shown
    assert "never" not in shown


@pytest.fixture
def hasty_interpreter() -> Iterator[None]:
    """One that changes threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_interpreter")
def test_threads_that_note_in_one_series_lose_nothing() -> None:
    registry = Registry()
    counts = registry.counter("calls_total", "Calls.", ["model"]).series("m")
    observations = registry.histogram("s", "Seconds.", ["model"], buckets=[1.0]).series("m")

    def note() -> None:
        for _ in range(5000):
            counts.add()
            observations.observe(0.5)

    threads = [threading.Thread(target=note) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = registry.render()
    assert 'calls_total{model="m"} 20000\n' in shown
    assert 's_sum{model="m"} 10000\n' in shown
    assert 's_count{model="m"} 20000\n' in shown
