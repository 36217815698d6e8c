"""As many open descriptors as the system allows: each call under way takes two."""

from __future__ import annotations

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["raise_limit"]


def raise_limit() -> None:
    """Lift the soft limit to the hard one. Linux begins with 1024, for the sake of programs that use select(2)."""
    if resource is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # macOS gives no hard limit and takes none that is larger than one of its own
