"""The API's paths, under `/api/v1/`."""

from sessions import api

_ONE = r"sessions/(?P<pk>[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})"

ROUTES = [
    (r"sessions", api.Sessions.as_view(), "sessions"),
    (_ONE, api.OneSession.as_view(), "session"),
    (rf"{_ONE}/done", api.Done.as_view(), "session-done"),
    (rf"{_ONE}/extend", api.Extend.as_view(), "session-extend"),
    (rf"{_ONE}/events", api.Events.as_view(), "session-events"),
    (rf"{_ONE}/diagnostics", api.DiagnosticsView.as_view(), "session-diagnostics"),
    (rf"{_ONE}/ssh-key", api.SshKey.as_view(), "session-ssh-key"),
]
