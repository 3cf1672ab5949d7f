"""The application: routes, and engines that live as long as it does."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from suffice.budget import Budgeter
from suffice.engines import MANAGED, Engine, open_engine, settle_engine
from suffice.engines.pool import Pool
from suffice.engines.settings import ENGINE_SETTINGS
from suffice.serve.api.routes import ROUTES
from suffice.serve.auth.api_keys import KeyRing
from suffice.serve.auth.tiers import load_budgeter
from suffice.serve.config import ServeSettings, check_exposure
from suffice.serve.http.asgi import Application, Scope
from suffice.serve.http.middleware import ExchangeMiddleware, HttpExchange
from suffice.serve.http.router import Router
from suffice.serve.limits.quotas import Quotas
from suffice.serve.observe.spans import open_spans
from suffice.serve.request_log.store import Store
from suffice.serve.request_log.texts import TextLog
from suffice.serve.request_log.usage_query import RecentUsage
from suffice.serve.request_log.writer import RequestLogWriter
from suffice.serve.service import Service

if TYPE_CHECKING:
    from suffice.serve.learning.traffic import TrafficLearner

__all__ = ["build_app", "engines_of", "open_service", "with_engine"]

_LOG = logging.getLogger(__name__)
_RELEASE_SECONDS = 5.0  # for answers that were cancelled at shutdown to give back what they hold


def with_engine(settings: ServeSettings) -> tuple[ServeSettings, str]:
    """The settings with the engine that is run where they leave it open, and why it is that one; '' where there was no
    choice. Raises as `choose_engine`."""
    if settings.upstreams:
        return settings, ""
    kind, reason = settle_engine(
        settings.engine,
        settings.model,
        adapters=settings.adapters,
        device=settings.device,
        engine_python=settings.engine_python,
    )
    return replace(settings, engine=kind), reason


def engines_of(settings: ServeSettings) -> list[Engine]:
    """The engines that the settings name, not yet entered.

    Raises:
        UsageError: a package is missing, or an address is not one.
    """
    if settings.upstreams:
        # not OPENAI_API_KEY: OpenAI's key is not for other operators' upstreams
        key = os.environ.get("SUFFICE_API_KEY", "")
        timeout = settings.upstream_timeout
        return [
            open_engine(settings.model, upstream=url, engine=settings.engine, read_timeout=timeout, api_key=key)
            for url in settings.upstreams
        ]
    given: dict[str, Any] = {name: getattr(settings, name) for name in ENGINE_SETTINGS}
    if settings.engine in MANAGED:
        given["read_timeout"] = settings.upstream_timeout
    return [open_engine(settings.model, engine=settings.engine, **given)]


@asynccontextmanager
async def open_service(settings: ServeSettings, engines: Sequence[Engine]) -> AsyncIterator[Service]:
    """The service over engines, entered; closed when the block ends, after what runs has been released and written.

    Raises:
        SufficeError: the server may not or cannot start.
    """
    budgeter = load_budgeter(settings)
    async with AsyncExitStack() as stack:
        store, ring, replica = Store(settings.database_url), KeyRing(), uuid.uuid4().hex
        stack.callback(store.close)
        writer = RequestLogWriter(store, ring, _traffic(settings, budgeter, store, replica), replica)
        stack.callback(writer.close)
        if notice := check_exposure(settings, has_keys=ring.configured):
            _LOG.info(notice)
        quotas = Quotas(settings.quota_storage, settings.database_url)
        stack.push_async_callback(quotas.close)
        if (spans := open_spans(settings)) is not None:
            stack.callback(spans.close)
        texts = _text_log(settings, store, stack)
        pool = await stack.enter_async_context(Pool.of(engines))
        for each in pool.upstreams:
            if not each.entered:
                _LOG.warning("%s; the others serve, and it is asked again", each.detail, extra={"upstream": each.name})
        service = Service(settings, pool, budgeter, ring, writer, quotas, RecentUsage(store), spans, texts)
        try:
            yield service
        finally:
            await _until_released(service)
            if service.access_log is not None:
                service.access_log.write()


def _traffic(settings: ServeSettings, budgeter: Budgeter, store: Store, replica: str) -> TrafficLearner | None:
    """None without a length model, which is where numpy is missing."""
    if budgeter.learned_length is None:
        return None
    from suffice.serve.learning.traffic import TrafficLearner

    return TrafficLearner(budgeter.learned_length.model, store, replica, settings.length_folder)


def _text_log(settings: ServeSettings, store: Store, stack: AsyncExitStack) -> TextLog | None:
    store.forget_texts(before=time.time() - settings.log_prompts_days * 86400)  # also when it was switched off since
    if not settings.log_prompts:
        return None
    days = settings.log_prompts_days
    _LOG.info("log_prompts is on: texts of prompts and answers are kept in the database for %g days", days)
    log = TextLog(store, days)
    stack.callback(log.close)
    return log


async def _until_released(service: Service) -> None:
    try:
        async with asyncio.timeout(_RELEASE_SECONDS):
            await service.released()
    except TimeoutError:
        _LOG.warning("%d requests did not end at shutdown", len(service.requests))


def build_app(service: Service) -> Application:
    """The ASGI application over an open service."""

    def ended(scope: Scope, exchange: HttpExchange) -> None:
        service.metrics.response(service.route_label(scope), exchange.status)
        if service.access_log is not None:
            service.access_log.add(scope, exchange)

    return ExchangeMiddleware(Router(ROUTES, service), ended, service.requests.__contains__, lambda: service.leaving)
