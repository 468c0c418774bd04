"""Names of the signals that end processes."""

import signal


def signal_name(number: int) -> str:
    """The name of a signal; its number if it has none, as most real-time signals.

    >>> signal_name(9), signal_name(40)
    ('SIGKILL', 'signal 40')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
