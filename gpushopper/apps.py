from django.apps import AppConfig


class GpuShopperConfig(AppConfig):
    name = "gpushopper"
    verbose_name = "Consumers and keys"

    def ready(self) -> None:
        from gpushopper import celery, checks, wiring  # noqa: F401

        wiring.connect()
