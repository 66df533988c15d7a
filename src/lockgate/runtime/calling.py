"""Calls a Python function from the event loop: coroutines as they are, others in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import Any


async def call_function(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The function's result. Cancelling leaves a thread running, but waits for it no longer."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    result = await _in_thread(function, args, kwargs)
    return await result if inspect.isawaitable(result) else result


async def _in_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # A thread per call: in a pool, a few tools that hang would keep every other tool from running,
    # and the process from ending.
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def deliver(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            set_outcome(outcome)

    def work() -> None:
        try:
            outcome = context.run(function, *args, **kwargs)
        except BaseException as problem:  # handed to the caller, whatever it is
            if isinstance(problem, (StopIteration, SystemExit, KeyboardInterrupt)):  # these would end the loop
                problem = RuntimeError(f"the function raised {problem!r}")
            arguments: tuple[Any, ...] = (deliver, future.set_exception, problem)
        else:
            arguments = (deliver, future.set_result, outcome)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(*arguments)

    threading.Thread(target=work, name=f"tool-{getattr(function, '__name__', 'call')}", daemon=True).start()
    return await future
