"""The rows that must end as they say and do not yet, by name. Each of them fails today, or this list is wrong."""

# Paid, and the answer did not come to its end: the same payment for the same request is to be served again.
REDELIVERY = [
    "leaves as it settles", "leaves as it settles, no answer", "leaves in mid-answer", "leaves as the backend works (paid)",
    "backend resets in its answer", "backend resets as it is settled", "backend goes down in its answer",
    *(f"backend answers {status} after all" for status in (400, 404, 429, 500, 503)),
    "backend resets before its headers after all", "backend stalls after all", "backend is down after all",
    "backend goes down after all",
]
# Settled, and no answer to the first request's sendings: the payment sent again meets a used nonce, which is evidence of nothing for it.
RESUMED = ["settled, and no answer at all", "settled, and then down", "settled behind its back"]

AWAITED = {**dict.fromkeys(REDELIVERY, "redelivery"), **dict.fromkeys(RESUMED, "a used nonce of a payment taken up again")}
