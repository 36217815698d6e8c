"""Where calls and feedback are kept. Knows nothing of HTTP; `open_storage` is the way in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from storage.base import IncompatibleStoreError, Storage, StorageError
from storage.sqlite import open_sqlite
from storage.texts import PLAIN_TEXTS, TextReader

__all__ = ["IncompatibleStoreError", "Storage", "StorageError", "open_storage"]

_BACKENDS: dict[str, Callable[..., Awaitable[Storage]]] = {"sqlite": open_sqlite}


async def open_storage(
    database: str, *, sync: str = "normal", create: bool = True, texts: TextReader = PLAIN_TEXTS
) -> Storage:
    """Open the store that ``database`` names, a path or ``SCHEME:///path``, making it if there is none.

    Without ``create`` it has to be there.
    ``texts`` reads what of calls can be searched.
    ``sync`` is ``"normal"`` (committed rows survive the death of the process) or ``"full"`` (a loss of power too).
    Raises `IncompatibleStoreError` where what is there can't be used, `StorageError` where it can't be reached.
    """
    scheme, separator, rest = database.partition("://")
    if not separator:
        scheme, rest = "sqlite", database
    elif rest.startswith("/"):
        rest = rest[1:]  # as in SQLAlchemy: three slashes open a relative path, four an absolute one
    backend = _BACKENDS.get(scheme)
    if backend is None:
        raise StorageError(f"no store of kind {scheme!r}; there is {', '.join(_BACKENDS)}")
    return await backend(rest, sync=sync, create=create, texts=texts)
