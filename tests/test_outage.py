"""What an operator reads while something outside fails: each outage once, reminders while it lasts, no flapping."""

from __future__ import annotations

import logging
import threading

import pytest

from suffice.outage import Outage

LOG = logging.getLogger("suffice.test.outage")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outage(clock: Clock, caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.INFO)
    return Outage(LOG, "it is back", remind_seconds=600, quiet_seconds=60, clock=clock)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def test_an_outage_is_reported_once_and_so_is_its_end(
    outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage.worked()
    assert (said(caplog), outage.lasts) == ([], False)
    for clock.now in (0.0, 0.5, 1.0):
        outage.failed("it is away")
    assert (said(caplog), outage.lasts) == ([("WARNING", "it is away")], True)
    clock.now = 9.0
    outage.worked()
    assert caplog.records[0].outage_seconds == 9.0  # type: ignore[attr-defined]
    outage.worked()
    assert (said(caplog), outage.lasts) == ([("INFO", "it is back")], False)


def test_an_outage_that_lasts_is_called_to_mind(outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for clock.now in range(0, 1300, 10):
        outage.failed("it is away")
    words = [message for _, message in said(caplog)]
    assert words == ["it is away", "it is away (for 600 s now)", "it is away (for 1200 s now)"]


def test_what_fails_every_second_time_is_one_pair_of_lines_a_minute(
    outage: Outage, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for clock.now in range(0, 118, 2):
        outage.failed("it is away")
        outage.worked()
    assert [message for _, message in said(caplog)] == ["it is away", "it is back"] * 2
    outage.failed("it is away")
    assert said(caplog) == []
    clock.now = 200.0  # it began quietly, and it lasts
    outage.failed("it is away")
    assert said(caplog) == [("WARNING", "it is away")]


def test_another_cause_has_a_line_of_its_own(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        outage.failed("it is away")
        outage.failed("it lacks a column", cause="schema")
    outage.worked()
    assert [message for _, message in said(caplog)] == ["it is away", "it lacks a column", "it is back"]


def test_threads_report_it_once_together(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    ready = threading.Barrier(8)

    def fail() -> None:
        ready.wait()
        for _ in range(100):
            outage.failed("it is away")

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said(caplog) == [("WARNING", "it is away")]
