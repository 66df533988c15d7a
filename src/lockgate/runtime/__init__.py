"""Running one agent version: the native loop, framework hosts, suspension, replay."""

from lockgate.runtime.current import CurrentRun, current_run

__all__ = ["CurrentRun", "current_run"]
