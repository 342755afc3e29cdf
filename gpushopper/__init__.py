"""GPU Shopper: the wiring. Imports nothing, so that the command line starts without Django."""
