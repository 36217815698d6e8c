"""How long threads and the collector of garbage hold the event loop up."""

from __future__ import annotations

import gc
import sys
from typing import Final

__all__ = ["shorten_pauses"]

# Seconds for which a thread that reckons keeps the interpreter to itself while the loop wants it: ten in a row make a
# call late by five milliseconds, where Python's own figure makes it fifty.
_SWITCH_INTERVAL: Final = 0.0005


def shorten_pauses() -> None:
    """To be called once everything that lives as long as the process has been made.

    A full collection goes over all objects, and nothing else runs meanwhile: some 50 ms of those that modules have
    made, which never go. They are left out from here on.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    gc.collect()
    gc.freeze()
