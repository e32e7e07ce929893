import threading
import time
from email.utils import formatdate

import pytest

from icl_eval.decoding.engines.server.client import Pace, _read_wait
from icl_eval.decoding.engines.server.dispatch import run_all


@pytest.mark.parametrize(
    ("value", "seconds"), [("3", 3), ("0.5", 0.5), ("-7", 0), ("soon", None), ("", None), ("nan", None)]
)
def test_what_a_server_asks_to_wait_is_read(value, seconds):
    assert _read_wait({"retry-after": value}) == seconds


def test_a_date_to_wait_for_is_read():
    assert _read_wait({"retry-after": formatdate(time.time() + 90)}) == pytest.approx(90, abs=2)
    assert _read_wait({"retry-after": formatdate(time.time() - 90)}) == 0
    assert _read_wait({}) is None


def test_no_minute_sees_more_than_its_number():
    now = [100.0]
    pace = Pace(120, clock=lambda: now[0])
    assert [pace.reserve(1) for _ in range(3)] == [0.0, 0.5, 1.0]
    assert pace.reserve(10) == 1.5
    assert pace.reserve(1) == 6.5
    now[0] += 1000
    assert pace.reserve(1) == 0.0
    assert [Pace(None).reserve(1000) for _ in range(2)] == [0.0, 0.0]


def test_tasks_are_taken_as_there_is_room_and_results_come_as_they_end():
    taken, running, most = [], [], []
    lock = threading.Lock()

    def tasks():
        for number in range(20):
            taken.append(number)
            yield number

    def work(number):
        with lock:
            running.append(number)
            most.append(len(running))
        time.sleep(0.01)
        with lock:
            running.remove(number)
        return number

    results = run_all(tasks(), work, 3, lambda: None)
    first = next(results)
    assert len(taken) <= 4
    assert sorted([first, *results]) == list(range(20))
    assert max(most) == 3


def test_results_in_flight_come_before_the_error_that_ends_it():
    gave_up = []
    failed = threading.Event()

    def work(number):
        if number == 1:
            failed.set()
            raise ValueError("one failed")
        failed.wait()
        time.sleep(0.05)
        return number

    results = []

    def collect():
        for result in run_all(iter(range(100)), work, 3, lambda: gave_up.append(1)):
            results.append(result)

    with pytest.raises(ValueError, match="one failed"):
        collect()
    assert sorted(results) == [0, 2]
    assert gave_up
