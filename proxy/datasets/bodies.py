"""What may be sent to the datasets' routes, as pydantic models. contracts/helicone.md section 4.6."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from proxy.reads.bodies import WHOLE, HeliconeBody, Tree

__all__ = ["DatasetChange", "DatasetPage", "DatasetsQuery", "NewDataset", "RowEdit"]

Ids = Annotated[list[str], Field(default_factory=list, max_length=1000)]


class NewDataset(HeliconeBody):
    """A name, and the calls to copy: by their ids, and all that a filter means."""

    dataset_name: Annotated[str, Field(min_length=1, max_length=1024)]
    request_ids: Ids
    filter: Tree | None = None
    meta: dict[str, Any] | None = None


class DatasetChange(HeliconeBody):
    """Calls to copy, and calls or rows to take out."""

    add_requests: Ids
    remove_requests: Ids
    filter: Annotated[Tree | None, Field(description="Copies all calls that it means.")] = None


class DatasetPage(HeliconeBody):
    """Which part of the rows."""

    offset: Annotated[int, Field(ge=0, le=10**9), WHOLE] = 0
    limit: Annotated[int, Field(ge=0, le=1000), WHOLE] = 100


class DatasetsQuery(HeliconeBody):
    """Which datasets; all of them without ids."""

    dataset_ids: Annotated[list[str] | None, Field(max_length=1000)] = None


class RowEdit(HeliconeBody):
    """What to put in the place of the bodies; what is left out, or null, stays."""

    request_body: Any = None
    response_body: Any = None
