"""The service over HTTP: the only room that knows the web framework.

A request passes the ``Gate`` (request id, key, admission, body limit, log line), a route (its body checked against
``schema`` or ``clients``), and a ``Batcher`` (one thread for the model, one for events, one for items). Whatever goes
wrong is answered in one shape, ``{"error": {"type", "message", "request_id"}}``.
"""
