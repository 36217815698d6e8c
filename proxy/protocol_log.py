"""What aiohttp's server says of requests that are no HTTP: it would quote them, credentials and all."""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError

__all__ = ["protocol_logger"]


class _WithoutQuotation(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args = "refused a request that is no HTTP: %s", (type(error).__name__,)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def protocol_logger() -> logging.Logger:
    """The logger for aiohttp's server protocol."""
    logger = logging.getLogger("proxy.http")
    if not any(isinstance(known, _WithoutQuotation) for known in logger.filters):
        logger.addFilter(_WithoutQuotation())
    return logger
