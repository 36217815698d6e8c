"""The lines on standard error: what went wrong and where, and never what was being worked on.

The text of an exception may quote a header field or a body; a traceback's lines are of the source alone. So of an
exception its type is told, and of one of the operating system the reason.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any, Final

__all__ = ["log_to_standard_error", "tell_of_lost_exceptions"]

logger = logging.getLogger(__name__)

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"
# asyncio goes on with the callback's arguments.
_OF_CALLBACK: Final = "Exception in callback"


class _Formatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:
        return _traceback(ei[1]).rstrip() if ei[1] is not None else ""


def _traceback(error: BaseException) -> str:
    before = ""
    if error.__cause__ is not None:
        before = _traceback(error.__cause__) + _CAUSE
    elif error.__context__ is not None and not error.__suppress_context__:
        before = _traceback(error.__context__) + _CONTEXT
    lines = "".join(traceback.format_tb(error.__traceback__))
    reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    return f"{before}Traceback (most recent call last):\n{lines}{type(error).__qualname__}{reason}\n"


def log_to_standard_error() -> None:
    """Begin logging, for the whole process."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def tell_of_lost_exceptions(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop tell of exceptions that nobody waited for in such lines, and not with what it knows besides."""
    loop.set_debug(False)  # its lines quote the arguments of callbacks
    loop.set_exception_handler(_tell)


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    message = str(context.get("message", ""))
    logger.error("%s", _OF_CALLBACK if message.startswith(_OF_CALLBACK) else message, exc_info=context.get("exception"))
