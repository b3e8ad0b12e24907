import os
import signal

import pytest

from fupruner.runs.interrupts import Interrupts


def test_first_interrupt_is_remembered_and_the_second_ends() -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupts = Interrupts()
    with interrupts.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_request_of_the_machine_is_remembered_however_often_it_comes() -> None:
    with Interrupts().deferred() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert interrupts.asked


def test_processes_that_follow_take_no_notice() -> None:
    with Interrupts().deferred(heard=False) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert not interrupts.asked
