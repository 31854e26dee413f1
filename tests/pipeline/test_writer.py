"""Files are written behind the work, a few at a time."""

from __future__ import annotations

import threading

import pytest

from ppl.pipeline.writer import background_writer


def test_all_is_written_when_the_block_is_left():
    done = []
    with background_writer(3) as submit:
        for number in range(50):
            submit(done.append, number)
    assert sorted(done) == list(range(50))


def test_writes_do_not_pile_up():
    gate, submitted, written = threading.Semaphore(0), [], []

    def write(number):
        gate.acquire()
        written.append(number)

    def work(submit):
        for number in range(40):
            submitted.append(number)
            submit(write, number)

    with background_writer(2) as submit:
        worker = threading.Thread(target=work, args=(submit,))
        worker.start()
        worker.join(0.5)
        assert worker.is_alive()
        assert (len(submitted), len(written)) == (2 + 1, 0)
        gate.release(40)
        worker.join()
    assert sorted(written) == submitted


def test_a_write_that_fails_stops_the_work():
    done = []

    def write(number):
        if number == 2:
            raise OSError("the disk is full")
        done.append(number)

    with pytest.raises(OSError, match="the disk is full"), background_writer(1) as submit:
        for number in range(100):
            submit(write, number)
    assert len(done) < 100
