"""A facilitator that fails at /settle, before or after it has really settled: one transfer for one answer, in the end."""

from e2e.facilitator import reset

from .faults import behind_its_back, named, slow
from .play import LEFT, PENDING, SERVED, UNAVAILABLE, Row, Sees
from .rows import (AFTER_BACKEND, EIP3009, FAULTS, NO_MONEY, NOTHING_THERE, OPEN, PAID, SECRET, SETTLED, after, broke, hangs)

TIMED_OUT = ("before", "upfront")

ROWS = [
    Row("settle refuses", SETTLED, NO_MONEY, settle=[broke]),
    Row("settle refuses late", SETTLED, NO_MONEY, settle=[hangs(broke)], at="settle"),
    Row("settle is late", SETTLED, SERVED, settle=[hangs()], at="settle", **PAID),
    Row("settle answers late", SETTLED, SERVED, settle=[slow], at="settle", **PAID),
    # One sending fails: the client notices nothing.
    *(Row(f"settle {name} before", SETTLED, SERVED, alike=True, settle=[make], **PAID) for name, make in FAULTS.items()),
    *(Row(f"settle {name} after", SETTLED, SERVED, alike=True, settle=[after(make)], **PAID) for name, make in FAULTS.items()),
    Row("settle says that it is pending", SETTLED, SERVED, settle=[named], **PAID),
    Row("settled all that there was, and no answer", SETTLED, SERVED, settle=[after()], just_enough=True, **PAID),
    # All of them do: the payment sent again ends it.
    *(Row(f"settle {name} twice before", SETTLED, PENDING, alike=True, settle=[make, make], **OPEN) for name, make in FAULTS.items()),
    Row("settled, and no answer at all", SETTLED, PENDING, settle=[after(), reset], **SECRET),
    Row("settle goes down", SETTLED, PENDING, settle=[hangs()], at="settle", down="facilitator", **OPEN),
    Row("settled, and then down", SETTLED, PENDING, settle=[after(hangs(reset))], at="settle", down="facilitator", **SECRET),
    Row("settle is down by then", AFTER_BACKEND, UNAVAILABLE, at="backend", down="facilitator"),
    # The official facilitator refuses, because the money is not there.
    Row("there is no money", ("local", "upfront"), NOTHING_THERE, poor=True, again=NOTHING_THERE, total=0),
    Row("the money goes elsewhere", EIP3009, NOTHING_THERE, at="backend", poor=True, again=NOTHING_THERE, total=0),
    Row("the money goes elsewhere (permit2)", ("permit2",), Sees(402), at="backend", poor=True, again=Sees(402), total=0),
    # The client leaves.
    Row("leaves as it settles", SETTLED, LEFT, settle=[hangs()], at="settle", leaves=True, moved="price", claims=1),
    Row("leaves as it settles, no answer", SETTLED, LEFT, settle=[hangs(after())], at="settle", leaves=True,
        moved="price", claims=1),
    Row("leaves as it is refused", SETTLED, LEFT, settle=[hangs(broke)], at="settle", leaves=True),
    Row("leaves as it comes to nothing", SETTLED, LEFT, settle=[hangs(reset), reset], at="settle", leaves=True, **OPEN),
    # The gateway does not wait any longer.
    Row("settle times out once before", TIMED_OUT, SERVED, settle=[hangs()], until="answer", hasty=True, **PAID),
    Row("settle times out once after", TIMED_OUT, SERVED, settle=[after(hangs(reset))], until="answer", hasty=True, **PAID),
    Row("settles late behind its back", TIMED_OUT, SERVED, settle=[behind_its_back], until="resend", hasty=True, **PAID),
    Row("settles behind its back after the resend", TIMED_OUT, PENDING, settle=[behind_its_back, hangs()], until="resend",
        hasty=True, **OPEN),
    Row("settled behind its back", TIMED_OUT, PENDING, settle=[behind_its_back, hangs()], until="answer", hasty=True, **SECRET),
]
