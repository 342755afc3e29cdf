"""What every provider plug-in promises, as tests that its author runs.

The kit plays an adapter against a stand-in of its service that the author supplies, on a clock of its own and
without any network. Between the two it puts a line that it can break: answers are lost, late, cut off, garbled,
redirected, or lack a member, and each time the adapter has to say that it does not know, rather than that nothing
is there.

An author writes a `Scene` and one line of a test module:

    from providers.conformance.kit import Conformance

    class TestAttic(Conformance):
        scene = AtticScene

and runs `pytest`. Only `kit` needs pytest; this package does not.
"""

from providers.conformance.scene import Scene
from providers.sandbox.wire import Request, Response, html, plain, reply

__all__ = ["Request", "Response", "Scene", "html", "plain", "reply"]
