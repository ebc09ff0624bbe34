"""OpenTelemetry: a span of each request, sent to a collector. Spans name routes and stages, never users or items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from m6rec.errors import ExtraError

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExportResult

UNTRACED = ("/healthz", "/readyz", "/metrics")
KEPT = ("http.request.method", "http.route", "http.response.status_code", "error.type", "m6rec.")
"""How the names of the attributes begin that leave the service; paths and queries hold ids of users."""


class Tracing:
    """FastAPI's own tracing, with spans sent to an OTLP/HTTP endpoint; "" for none.

    Attributes:
        config: What FastAPI is given.

    Raises:
        ExtraError: The exporter is not installed.
    """

    def __init__(self, endpoint: str) -> None:
        self._provider = _provider(endpoint) if endpoint else None
        self.config: TelemetryConfig = {
            "tracing": self._provider is not None,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "tracer_provider": self._provider,
            "exclude": lambda scope: scope["path"] in UNTRACED,
        }

    def close(self) -> None:
        """Sends what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def tell(facts: Mapping[str, str | float]) -> None:
    """Adds facts to the span of this request, if there is one."""
    trace.get_current_span().set_attributes({f"m6rec.{name}": value for name, value in facts.items()})


def _provider(endpoint: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    except ImportError as error:
        raise ExtraError("Tracing", "otel") from error

    class WithoutIds(SpanExporter):
        """Sends copies with ``KEPT`` attributes and no events, whose messages quote what was sent."""

        def __init__(self) -> None:
            self._inner = OTLPSpanExporter(endpoint=endpoint)

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return self._inner.export([_without_ids(span) for span in spans])

        def shutdown(self) -> None:
            self._inner.shutdown()  # type: ignore[no-untyped-call]

    def _without_ids(span: ReadableSpan) -> ReadableSpan:
        attributes: dict[str, Any] = {
            name: value for name, value in (span.attributes or {}).items() if name.startswith(KEPT)
        }
        return ReadableSpan(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=attributes,
            kind=span.kind,
            status=trace.Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    provider = TracerProvider(resource=Resource.create({"service.name": "m6rec"}))
    provider.add_span_processor(BatchSpanProcessor(WithoutIds()))
    return provider
