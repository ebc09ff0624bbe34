"""Spans of requests, as a collector gets them."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from m6rec.errors import ConfigError
from m6rec.serving.settings import Settings
from tests import running
from tests.fake import FakeBackend

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def collector():
    """(its URL, the bodies that it was sent)."""
    bodies = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", bodies
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_is_a_span_with_its_stages_and_without_ids(collector):
    endpoint, bodies = collector
    with running.service(FakeBackend(), traces=endpoint) as url, httpx.Client(base_url=url) as http:
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Request-Id": "request-7"}
        assert http.post("/v1/recommend", json={"user": "u1"}, headers=headers).status_code == 200
        assert http.get("/v1/users/secret-user").status_code == 404
        assert http.get("/v1/users", params={"prefix": "secret"}).status_code == 200
        assert http.get("/healthz").status_code == 200
    spans = [
        span
        for body in bodies
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]
    assert sorted(span.name for span in spans) == ["GET /v1/users", "GET /v1/users/{id}", "POST /v1/recommend"]
    recommend = next(span for span in spans if span.name == "POST /v1/recommend")
    assert recommend.trace_id.hex() == TRACE
    told = {one.key: one.value for one in recommend.attributes}
    assert told["m6rec.request_id"].string_value == "request-7"
    assert told["m6rec.queue_ms"].double_value >= 0
    assert told["http.response.status_code"].int_value == 200
    assert b"secret" not in b"".join(bodies)


def test_no_span_leaves_a_service_without_a_collector(collector):
    _, bodies = collector
    with running.service(FakeBackend()) as url:
        assert httpx.post(f"{url}/v1/recommend", json={"user": "u1"}).status_code == 200
    assert bodies == []


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="traces is 'localhost:4318'; give the URL of a collector"):
        Settings(traces="localhost:4318")
