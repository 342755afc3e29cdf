"""The API's paths, under `/api/v1/`."""

from inventory import api

ROUTES = [
    (r"inventory", api.Menu.as_view(), "inventory"),
    (r"inventory/(?P<offer_id>[^/]+)", api.OneOffer.as_view(), "offer"),
]
