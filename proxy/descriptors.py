"""As many open descriptors as the system allows, and no more connections than they suffice for."""

from __future__ import annotations

import logging
from typing import Final

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["affordable", "raise_limit"]

logger = logging.getLogger(__name__)

# Each call under way takes two: the client's connection and the upstream's.
_A_CONNECTION: Final = 2
# For all but connections: the database, the loop, siblings, and connections that are about to be refused.
_SPARE: Final = 256


def raise_limit() -> None:
    """Lift the soft limit to the hard one. Linux begins with 1024, for the sake of programs that use select(2)."""
    if resource is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # macOS gives no hard limit and takes none that is larger than one of its own


def affordable(connections: int) -> int:
    """So many connections, or as many as there are descriptors for; at least one."""
    if resource is None:
        return connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    most = max(1, (soft - _SPARE) // _A_CONNECTION)
    if most < connections:
        logger.warning("limits.max_connections is %d, but %d descriptors suffice for %d", connections, soft, most)
    return min(most, connections)
