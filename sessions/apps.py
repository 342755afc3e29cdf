from django.apps import AppConfig


class SessionsConfig(AppConfig):
    name = "sessions"
    label = "gpu_sessions"  # Django's own session app has the label "sessions".
    verbose_name = "Sessions"
