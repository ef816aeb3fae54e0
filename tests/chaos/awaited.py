"""The rows that must end as they say and do not yet, by name. Each of them fails today, or this list is wrong."""

# Settled, and no answer to the first request's sendings: the payment sent again meets a used nonce, which is evidence of nothing for it.
RESUMED = ["settled, and no answer at all", "settled, and then down", "settled behind its back"]

AWAITED = dict.fromkeys(RESUMED, "a used nonce of a payment taken up again")
