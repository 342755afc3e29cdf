"""`python -m providers.sandbox`."""

from providers.sandbox.server import main

if __name__ == "__main__":
    main()
