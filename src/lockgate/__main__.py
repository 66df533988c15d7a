"""The entry point: runs the command line and turns each deliberate error into a message and an exit code."""

from __future__ import annotations


def main() -> None:
    """``lockgate …``. Exit codes: 0 pass · 1 fail · 2 usage · 3 inconclusive · 4 could not evaluate."""
    import gc
    import signal
    import sys

    try:
        # A command makes some hundred thousand objects by importing, and they all stay: looking them over again and
        # again is a tenth of its time.
        gc.set_threshold(200_000, 5, 20)
        from lockgate.cli import app

        app()
    except SystemExit as end:
        _end_at_once(end.code)
        raise
    except KeyboardInterrupt:  # before there was a command to stop
        sys.stderr.write("interrupted\n")
        sys.exit(128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is said: no traceback from the interpreter's own ending
        gc.freeze()  # else the interpreter looks everything over once more before it ends, a quarter of the time


def _end_at_once(code: object) -> None:
    """End the process here, when nothing in it is left to wait for. The interpreter would first take down all that was
    imported, piece by piece, which takes longer than many a command."""
    import atexit
    import os
    import sys
    import threading

    if not isinstance(code, int) or threading.active_count() > 1:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return  # nobody reads, or the disk is full: the interpreter says so
    atexit._run_exitfuncs()
    os._exit(code)


if __name__ == "__main__":
    main()
