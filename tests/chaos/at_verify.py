"""A facilitator that fails at /verify: nothing is paid, and the payment is as good as new."""

from .faults import forward
from .play import LEFT, SERVED, UNAVAILABLE, Row
from .rows import EVERY, FAULTS, NO_MONEY, PAID, VERIFIED, after, broke, hangs

ROWS = [
    Row("all is well", EVERY, SERVED, verify=[forward], settle=[forward], **PAID),
    Row("verify refuses", VERIFIED, NO_MONEY, verify=[broke]),
    Row("verify refuses late", VERIFIED, NO_MONEY, verify=[hangs(broke)], at="verify"),
    Row("verify is late", VERIFIED, SERVED, verify=[hangs()], at="verify", **PAID),
    *(Row(f"verify {name} before", VERIFIED, UNAVAILABLE, alike=True, verify=[make]) for name, make in FAULTS.items()),
    *(Row(f"verify {name} after", VERIFIED, UNAVAILABLE, alike=True, verify=[after(make)]) for name, make in FAULTS.items()),
    Row("verify is down", EVERY, UNAVAILABLE, down="facilitator"),
    Row("verify goes down", VERIFIED, UNAVAILABLE, verify=[hangs()], at="verify", down="facilitator"),
    Row("leaves as it is verified", VERIFIED, LEFT, verify=[hangs()], at="verify", leaves=True),
    Row("leaves before a refusal", VERIFIED, LEFT, verify=[hangs(broke)], at="verify", leaves=True),
    Row("verify times out", ("before", "overlap", "metered"), UNAVAILABLE, verify=[hangs()], until="answer", hasty=True),
]
