"""A backend that fails, and clients that leave while it works or while its answer is on its way."""

from .play import LEFT, SERVED, Row, Sees
from .rows import AFTER_BACKEND, EVERY, METERED, PAID, SETTLED, hangs
from .stage import IMPATIENT, PARTS

# Nobody has paid before these fail, and nobody does.
UNPAID = (*AFTER_BACKEND, *METERED)
STATUSES = (400, 404, 429, 500, 503)
CUT = Sees(200, receipt=True)
# It has been paid for, and is served when it is asked for again.
BROKEN = {"moved": "price", "claims": 1}
# Sends half of its answer, and resets when it is let go.
HALF = {"parts": PARTS[:1], "waits": True, "breaks": True}
UPFRONT = ("upfront",)


def failed(status: int) -> Sees:
    """Paid, and this is what it has bought."""
    return Sees(status, receipt=True)


ROWS = [
    *(Row(f"backend answers {status}", UNPAID, Sees(status), does={"status": status}, alike=True) for status in STATUSES),
    *(Row(f"backend answers {status} after all", UPFRONT, failed(status), does={"status": status}, alike=True, **BROKEN) for status in STATUSES),
    Row("backend answers 302", SETTLED, Sees(302, whole=True, receipt=True), does={"status": 302}, **PAID),
    Row("backend resets before its headers", UNPAID, Sees(503), does={"reset": "before"}),
    Row("backend resets before its headers after all", UPFRONT, failed(503), does={"reset": "before"}, **BROKEN),
    Row("backend stalls", UNPAID, Sees(504), does={"hold": True}, headers=(IMPATIENT,), until="answer"),
    Row("backend stalls after all", UPFRONT, failed(504), does={"hold": True}, headers=(IMPATIENT,), until="answer", **BROKEN),
    Row("backend is late", EVERY, SERVED, at="backend", **PAID),
    Row("backend pauses in its answer", SETTLED, SERVED, at="stream", **PAID),
    Row("backend resets in its answer", SETTLED, CUT, does=HALF, at="stream", **BROKEN),
    # Nothing has left, and the settlement cannot be called back.
    Row("backend resets as it is settled", AFTER_BACKEND, Sees(502), does=HALF, settle=[hangs()], at="settle", overtakes=True,
        **BROKEN),
    Row("backend is down", UNPAID, Sees(503), down="backend"),
    Row("backend is down after all", UPFRONT, failed(503), down="backend", **BROKEN),
    Row("backend goes down", UNPAID, Sees(503), at="backend", down="backend"),
    Row("backend goes down after all", UPFRONT, failed(503), at="backend", down="backend", **BROKEN),
    Row("backend goes down in its answer", SETTLED, CUT, at="stream", down="backend", **BROKEN),
    Row("leaves as the backend works", UNPAID, LEFT, at="backend", leaves=True),
    Row("leaves as the backend works (paid)", UPFRONT, LEFT, at="backend", leaves=True, **BROKEN),
    Row("leaves in mid-answer", SETTLED, LEFT, at="stream", leaves=True, **BROKEN),
]
