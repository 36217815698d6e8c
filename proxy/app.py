"""The composition root: makes every part from the settings and puts them together. Nothing else opens the store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from proxy.auth import Caller, KeyRing
from proxy.base_url import BaseUrl
from proxy.config import Limits, Settings
from proxy.config import Upstream as UpstreamSettings
from proxy.connection_limits import ConnectionLimits
from proxy.cors import Cors
from proxy.datasets.helicone import HeliconeDatasets
from proxy.description import Description
from proxy.descriptors import affordable
from proxy.dispatch import Dispatcher
from proxy.export.route import Exports
from proxy.feedback.helicone import HeliconeFeedback
from proxy.feedback.portkey import PortkeyFeedback
from proxy.feedback.reading import JsonReader
from proxy.feedback.redacting import redacting
from proxy.forward import Forwarder
from proxy.health import Health
from proxy.in_flight import InFlight
from proxy.indexing import adding_up, indexing_texts
from proxy.logs.helicone import HeliconeLogs
from proxy.logs.intake import Intake
from proxy.logs.portkey import PortkeyLogs
from proxy.metrics import Metrics
from proxy.origins import OriginGuard, is_loopback
from proxy.pricing import Pricer
from proxy.protocol_log import protocol_logger
from proxy.reads.analytics import FeedbackAnalytics
from proxy.reads.properties import PropertyQueries
from proxy.reads.queries import RequestQueries
from proxy.reads.requests import RequestReads
from proxy.reads.sessions import SessionQueries
from proxy.reads.summaries import FeedbackSummaries
from proxy.reads.users import UserQueries
from proxy.recorder import Recorder, running_recorder
from proxy.redaction.redactor import Redactor
from proxy.redaction.rules import Rules
from proxy.retention import running_retention
from proxy.routes import Router
from proxy.server import Server
from proxy.siblings import Siblings
from proxy.snapshots import Snapshots
from proxy.text_limits import FeedbackLimits, TextLimits
from proxy.texts import TEXTS
from proxy.under_way import UnderWay
from proxy.upstream_http import UpstreamClient
from proxy.upstreams import Upstream, UpstreamTable, provider_name
from storage import Storage, open_storage

__all__ = ["Kibitz", "new_pricer", "new_redactor", "open_store", "running_kibitz", "text_limits"]


@dataclass(frozen=True, slots=True)
class Kibitz:
    """A running Kibitz without a socket: a server to bind, and the parts that its routes stand on."""

    server: Server
    storage: Storage
    recorder: Recorder
    router: Router
    forwarder: Forwarder


@contextlib.asynccontextmanager
async def open_store(settings: Settings, *, create: bool = True) -> AsyncIterator[Storage]:
    """The store of the settings, closed on leaving. Raises what `storage.open_storage` raises."""
    storage = await open_storage(settings.database, sync=settings.sync, create=create, texts=TEXTS)
    try:
        yield storage
    finally:
        await storage.close()


def new_pricer(settings: Settings) -> Pricer:
    """What prices calls by the settings' own prices and the library's."""
    return Pricer({name: prices.model_dump(exclude_none=True) for name, prices in settings.prices.items()})


def text_limits(settings: Settings) -> TextLimits:
    """What the texts of rows are held to."""
    return TextLimits(**settings.limits.model_dump(include=set(TextLimits.__dataclass_fields__)))


def new_redactor(settings: Settings) -> Redactor | None:
    """What takes from all that is stored what the settings name; ``None`` where they name nothing."""
    rules = Rules(settings.redact.fields, settings.redact.patterns)
    return Redactor(rules) if rules else None


@contextlib.asynccontextmanager
async def running_kibitz(settings: Settings, siblings: Siblings | None = None) -> AsyncIterator[Kibitz]:
    """Everything but the listening. On leaving, what waits is written and the store closed.

    ``siblings`` are the other workers, where there are any.

    Raises what `storage.open_storage` raises.
    """
    async with contextlib.AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_store(settings))
        in_flight = InFlight()
        siblings = siblings or Siblings()
        under_way = UnderWay(in_flight, siblings)
        pricer = new_pricer(settings)
        metrics = Metrics()
        redactor = new_redactor(settings)
        recorder = _recorder(settings, storage, in_flight, pricer, metrics, redactor)
        snapshots = Snapshots(recorder.snapshot, siblings)
        # They are answered until the last row is written.
        await stack.enter_async_context(siblings.answering({**under_way.answers(), **snapshots.answers()}))
        await stack.enter_async_context(running_recorder(recorder))
        if siblings.is_first:
            await stack.enter_async_context(adding_up(storage, in_flight))
            if settings.search:
                await stack.enter_async_context(indexing_texts(storage, in_flight))
        limits = settings.limits
        client = UpstreamClient(max_header_field=limits.max_header_field, max_header_fields=limits.max_header_fields)
        stack.push_async_callback(client.close)
        health = Health(storage, snapshots.of_all)
        router = _router(settings, storage, under_way, recorder, pricer, redactor, health)
        drain = settings.on_disconnect == "drain"
        forwarder = Forwarder(client, recorder, in_flight, drain=drain, most=limits.max_requests_in_flight)
        dispatcher = Dispatcher(
            router,
            forwarder,
            _upstream_table(settings),
            _key_ring(settings),
            metrics,
            text_limits(settings),
            guard=_guard(settings),
            cors=Cors(settings.cors_origins) if settings.cors_origins else None,
            max_logged_body=settings.max_logged_body,
            max_request_body=limits.max_request_body,
            upload_idle_timeout=limits.upload_idle_timeout,
        )
        server = _server(settings, dispatcher, metrics, handler_cancellation=not drain)
        if siblings.is_first:
            await stack.enter_async_context(running_retention(settings.retention, storage, metrics))
        yield Kibitz(server, storage, recorder, router, forwarder)


def _recorder(
    settings: Settings,
    storage: Storage,
    in_flight: InFlight,
    pricer: Pricer,
    metrics: Metrics,
    redactor: Redactor | None,
) -> Recorder:
    return Recorder(
        storage,
        in_flight,
        pricer,
        metrics,
        strict=settings.durability == "strict",
        commit_wait=settings.commit_wait,
        max_waiting_bytes=settings.max_waiting_bytes,
        redactor=redactor,
    )


def _server(settings: Settings, dispatcher: Dispatcher, metrics: Metrics, *, handler_cancellation: bool) -> Server:
    return Server(
        dispatcher.handle,
        _connection_limits(settings.limits),
        metrics,
        handler_cancellation=handler_cancellation,
        auto_decompress=False,
        access_log=None,
        logger=protocol_logger(),
    )


def _connection_limits(limits: Limits) -> ConnectionLimits:
    chosen = limits.model_dump(include=set(ConnectionLimits.__dataclass_fields__))
    return ConnectionLimits(**{**chosen, "max_connections": affordable(limits.max_connections)})


def _router(
    settings: Settings,
    storage: Storage,
    under_way: UnderWay,
    recorder: Recorder,
    pricer: Pricer,
    redactor: Redactor | None,
    health: Health,
) -> Router:
    limits = settings.limits
    feedback = FeedbackLimits(**limits.model_dump(include=set(FeedbackLimits.__dataclass_fields__)))
    reader = JsonReader(limits.max_feedback_body, limits.body_timeout, "max_feedback_body", feedback)
    keep_unknown = settings.feedback.unknown_request == "keep"
    log_reader = JsonReader(limits.max_log_body, limits.body_timeout, "max_log_body", feedback)
    intake = Intake(
        recorder,
        log_reader,
        pricer,
        text_limits(settings),
        max_logged_body=settings.max_logged_body,
        redactor=redactor,
        keys=_key_ring(settings),
    )
    writing = redacting(storage, redactor or Redactor(Rules()))
    helicone = HeliconeFeedback(writing, under_way, reader, keep_unknown=keep_unknown)
    routes = [
        *helicone.routes(),
        *PortkeyFeedback(writing, under_way, reader, helicone).routes(),
        *HeliconeLogs(intake).routes(),
        *PortkeyLogs(intake).routes(),
        *RequestReads(storage, under_way).routes(),
        *RequestQueries(storage, reader).routes(),
        *FeedbackSummaries(storage, reader).routes(),
        *FeedbackAnalytics(storage).routes(),
        *SessionQueries(storage, reader).routes(),
        *UserQueries(storage, reader).routes(),
        *PropertyQueries(storage, reader).routes(),
        *Exports(storage).routes(),
        *HeliconeDatasets(writing, log_reader).routes(),
        *health.routes(),
    ]
    return Router([*routes, *Description(routes, feedback).routes()])


def _upstream_table(settings: Settings) -> UpstreamTable:
    default = settings.upstream
    return UpstreamTable(
        _upstream(provider_name(BaseUrl.parse(default.base_url)), default),
        {name: _upstream(name, upstream) for name, upstream in settings.upstreams.items()},
        [BaseUrl.parse(target) for target in settings.allowed_targets],
    )


def _upstream(name: str, settings: UpstreamSettings) -> Upstream:
    return Upstream(
        name=name,
        base=BaseUrl.parse(settings.base_url),
        api_key=settings.held_key,
        connect_timeout=settings.connect_timeout,
        first_byte_timeout=settings.first_byte_timeout,
        idle_timeout=settings.idle_timeout,
    )


def _key_ring(settings: Settings) -> KeyRing:
    return KeyRing((key.sha256, Caller(key.organisation, frozenset(key.scopes))) for key in settings.keys)


def _guard(settings: Settings) -> OriginGuard | None:
    if settings.keys:
        return None
    # Beyond loopback a server may be called by any name, unless its names are told.
    any_host = not is_loopback(settings.host.lower()) and not settings.allowed_hosts
    return OriginGuard(settings.allowed_hosts, Cors(settings.cors_origins).allows, any_host=any_host)
