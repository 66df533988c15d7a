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
    except KeyboardInterrupt:  # before there was a command to stop
        sys.stderr.write("interrupted\n")
        sys.exit(128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is said: no traceback from the interpreter's own ending
        gc.freeze()  # else the interpreter looks everything over once more before it ends, a quarter of the time


if __name__ == "__main__":
    main()
