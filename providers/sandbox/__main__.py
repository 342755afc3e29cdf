"""`python -m providers.sandbox`."""

from providers.sandbox.server import main

main()
