"""A signal waits for the end of the step."""

import os
import signal
import threading

import pytest
from accelerate import Accelerator

from schubert_hf.run.interrupt import Interrupted, InterruptGuard


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_at_the_next_check_only(accelerator: Accelerator, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with InterruptGuard(accelerator) as guard:
        guard.check()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # launchers pass it on once more
        with pytest.raises(Interrupted, match=number.name) as caught:
            guard.check()
    assert caught.value.exit_code == 128 + number
    assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(number) is before


def test_beside_the_main_thread_signals_are_left_alone(accelerator: Accelerator) -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with InterruptGuard(accelerator) as guard:
            guard.check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
