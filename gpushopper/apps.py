from django.apps import AppConfig


class GpuShopperConfig(AppConfig):
    name = "gpushopper"
    verbose_name = "Service"

    def ready(self) -> None:
        from gpushopper import celery, checks, wiring  # noqa: F401

        wiring.connect()
