"""What the datasets' routes answer. contracts/helicone.md section 4.6."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from proxy.feedback.shapes import Time

__all__ = ["CountAnswer", "DatasetAnswer", "DatasetItem", "DatasetRowItem", "DatasetRowsAnswer", "DatasetsAnswer"]


class DatasetId(TypedDict):
    """Of a new dataset."""

    datasetId: str


class DatasetAnswer(TypedDict):
    """A new dataset."""

    data: DatasetId
    error: None


class DatasetRowItem(TypedDict):
    """A copy of a call. Its bodies stand here, so that there is no address to fetch them from."""

    id: str
    origin_request_id: str
    dataset_id: str
    created_at: Time
    signed_url: None
    request_body: Any
    response_body: Any


class DatasetRowsAnswer(TypedDict):
    """Rows, in the order in which they were added."""

    data: list[DatasetRowItem]
    error: None


class DatasetItem(TypedDict):
    """A dataset."""

    id: str
    name: str
    created_at: Time
    dataset_type: Literal["helicone"]
    meta: dict[str, Any] | None
    organization: str
    requests_count: int


class DatasetsAnswer(TypedDict):
    """Datasets, oldest first."""

    data: list[DatasetItem]
    error: None


class CountAnswer(TypedDict):
    """How many rows."""

    data: int
    error: None
