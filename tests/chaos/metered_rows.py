"""Metered answers, which leave before they are settled: what was delivered is paid for, once, or is owed and held."""

from e2e.facilitator import refuse, reset

from .books import Unserved
from .faults import behind_its_back, named, slow
from .play import LEFT, PENDING, SERVED, SPENT, Row, Sees
from .rows import FAULTS, METERED, OPEN, PAID, SECRET, after, hangs
from .stage import EVENTS

# The input, and the first of the two pieces of text: 25 bytes are 7 begun tokens.
HALF_USED = 875 + 70
PART = {"moved": HALF_USED, "total": HALF_USED, "claims": 1, "again": SPENT, "unserved": Unserved.IN_PART}
CUT = Sees(200)
# All of the answer, and no receipt.
NO_RECEIPT = Sees(200, whole=True)
# Delivered, and nobody can or will settle it: it buys nothing more.
OWED = {**OPEN, "again": PENDING, "total": 0, "owed": True}
REFUSED = {**OPEN, "again": SPENT, "total": 0}
# Delivered and settled, and nobody knows that.
UNKNOWN = {**SECRET, "again": PENDING}
HALF = {"parts": EVENTS[:1], "waits": True, "breaks": True}


def broke():
    """There is no money."""
    return refuse("permit2_insufficient_balance")


ROWS = [
    Row("metered: settle is late", METERED, SERVED, settle=[hangs()], at="settle", **PAID),
    Row("metered: settle answers late", METERED, SERVED, settle=[slow], at="settle", **PAID),
    *(Row(f"metered: settle {name} before", METERED, SERVED, alike=True, settle=[make], **PAID) for name, make in FAULTS.items()),
    # Asked again, the official facilitator says of a used nonce only that the simulation has failed: nobody knows.
    *(Row(f"metered: settle {name} after", METERED, NO_RECEIPT, alike=True, settle=[after(make)], **UNKNOWN)
      for name, make in FAULTS.items()),
    Row("metered: settle says that it is pending", METERED, NO_RECEIPT, settle=[named], **UNKNOWN),
    *(Row(f"metered: settle {name} twice before", METERED, NO_RECEIPT, alike=True, settle=[make, make], **OWED) for name, make in FAULTS.items()),
    Row("metered: settled, and no answer at all", METERED, NO_RECEIPT, settle=[after(), reset], **UNKNOWN),
    Row("metered: settle refuses", METERED, CUT, settle=[broke], **REFUSED),
    Row("metered: the money goes elsewhere", METERED, CUT, at="stream", poor=True, **REFUSED),
    Row("metered: settle is down by then", METERED, NO_RECEIPT, at="stream", down="facilitator", **OWED),
    Row("metered: settle goes down", METERED, NO_RECEIPT, settle=[hangs()], at="settle", down="facilitator", **OWED),
    Row("metered: settled, and then down", METERED, NO_RECEIPT, settle=[after(hangs(reset))], at="settle", down="facilitator",
        **UNKNOWN),
    Row("metered: backend pauses in its answer", METERED, SERVED, at="stream", **PAID),
    Row("metered: backend resets in its answer", METERED, CUT, does=HALF, at="stream", **PART),
    Row("metered: backend goes down in its answer", METERED, CUT, at="stream", down="backend", **PART),
    Row("metered: leaves in mid-answer", METERED, LEFT, at="stream", leaves=True, **PART),
    Row("metered: leaves as it settles", METERED, LEFT, settle=[hangs()], at="settle", leaves=True, **PAID,
        unserved=Unserved.IN_PART),
    Row("metered: leaves, and settle resets", METERED, LEFT, settle=[after()], at="stream", leaves=True, **{**PART, "again": PENDING}),
    Row("metered: settle times out once", METERED, SERVED, settle=[hangs()], until="answer", hasty=True, **PAID),
    Row("metered: settles late behind its back", METERED, SERVED, settle=[behind_its_back], until="resend", hasty=True, **PAID),
]
