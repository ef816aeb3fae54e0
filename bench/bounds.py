"""What keeps a figure from its goal: said with what was measured in the same go."""

from __future__ import annotations

from .rows import Json, Row
from .scenes.challenge import OBSERVING
from .scenes.free import LOOKING
from .scenes.paid import AUTHZ, SAME, TWO

TRIED = """What was tried, and its effect:

| what | effect |
| --- | --- |
| all headers fetched at once; none where the reader has nothing to read; challenges kept for whoever asks the same | kept: on a busy machine a challenge took 119 µs, and takes 52 |
| one look at the clock for a callback; names of metrics and marks made once | kept: 13 of 63 calls of Envoy fewer for a paid request |
| payments read without copying their strings | kept: 41,000 instructions instead of 59,000 |
| the settlement sent from the callback that holds the answer, not at the root context's next tick | kept: 3 to 4 ms sooner; the CPU time is the same |
| arithmetic of our own for signatures (k256 with 32-bit limbs took 5.0 × libsecp256k1's native time) | kept |
| the reader not asked about a GET, by Envoy's route | kept: 5 to 10 µs of each |
| the reader left out by a matcher (`ExtensionWithMatcher`, or a composite filter) | the first still enters the module at the end of each stream, the second costs 4 µs itself: not kept |
| a kept challenge, or refusal, found before its resource's URL is made | kept: 5,300 instructions instead of 12,200 |
| Keccak of our own, a round written out | kept: 0.43 µs a block in V8 instead of 0.97, by as many instructions; bodies are hashed with it too |
| a payment's base64 decoded without looking for the other alphabet's signs first; header lists and bodies in buffers of their size | kept: a payment is decoded by 38,600 instructions instead of 47,100; a paid request took 3 % less in one series of four starts each |
| the module's functions in the order in which a paid request enters them, so that they lie together | by hand: a challenge and a paid request take 0 to 5 % less, by the start; it takes a list of functions that has to be kept up: not kept |
| `proxy_on_delete` left to `proxy_on_done`, one call of Envoy's into the module fewer | by hand: 1 % of a request without a price, nothing of a challenge: not kept |
| another allocator (`talc`, or lists of free blocks by size before the C library's) | 2 to 4 % of a paid request, less than two starts of the same Envoy differ by; 5 to 12 KiB more: not kept |
| `opt-level = "s"` | 37 KiB less, a challenge 28 % dearer: not kept |
| inlining up to LLVM's bound of 80 instead of 10 | 30 KiB more, no faster: not kept |
| `wasm-opt -Oz`, or without inlining what is called once | V8 compiles it no faster: not kept |
"""


# What leaving out the signature of a payer seen before saves a paid request, in microseconds. By hand, with modules that are not shipped.
SIGNATURE = 50


def _of_module(results: Json, what: str) -> str:
    """How much of a request's time is the module's own, by the profile."""
    times = results.get("profile", {}).get("raw", {}).get("profile", {}).get(what)
    if not times:
        return ""
    return f" By the profile below, {times['module'] / times['all']:.0%} of it are the module's own code."


def text(results: Json) -> str:
    """A paragraph for each figure that is not met and whose bound was measured."""
    rows = {row["id"]: Row.of(row) for part in results.values() for row in part["rows"]}

    def missed(*names: str) -> bool:
        return any(name in rows and rows[name].met is False for name in names)

    def reached(name: str) -> str:
        return f"{rows[name].reached.median:.2f}" if name in rows else "?"

    def cpu(part: str, server: str) -> float:
        readings = results.get(part, {}).get("raw", {}).get("readings", {})
        return readings[server]["cpu_us"]["median"] if server in readings else float("nan")

    found = []
    if missed("challenge-direct", "challenge-constant"):
        found.append(
            f"**A challenge.** Envoy's own answer takes {cpu('challenge', 'direct_response'):.0f} µs, a WebAssembly filter that sends constant bytes "
            f"{cpu('challenge', 'constant filter'):.0f}, the filter {cpu('challenge', 'filter'):.0f}: it has to fetch the headers, to count, and to tell "
            f"the access log what it did. A filter that sends constant bytes after the same calls takes {cpu('challenge', OBSERVING):.0f}, and so "
            f"reaches {reached('observing-direct')} of `direct_response` and {reached('observing-constant')} of the constant bytes.{_of_module(results, 'a challenge')}")
    if missed("challenge-axum"):
        found.append(f"**Against x402-axum.** Envoy's `direct_response` reaches {reached('direct-axum')} of it: no filter can reach more. And "
                     f"`ext_authz`, which asks once and checks nothing, reaches {reached('authz-axum')} of a whole payment there.")
    if missed("free-noop"):
        found.append(f"**A request without a price.** It costs the gate one fetch of the headers and a look at the clock: a filter that does nothing "
                     f"takes {cpu('free', 'no-op filter'):.0f} µs, one that does just that {cpu('free', LOOKING):.0f} ({reached('looking-noop')} of the "
                     f"first), the filter {cpu('free', 'filter'):.0f}.{_of_module(results, 'no price')}")
    parts = results.get("parts", {}).get("raw", {}).get("parts", {})
    if missed("forged-direct") and parts:
        found.append(f"**A forged payment** costs {cpu('forged', 'filter'):.0f} µs: a challenge ({cpu('challenge', 'filter'):.0f}), its header decoded "
                     f"({parts['decode']['v8_us']['median']:.0f} in a loop), and one recovery ({parts['recover']['v8_us']['median']:.0f} in a loop), which "
                     f"nothing can spare it. In a request both take longer than in a loop: other code has had the caches since."
                     f"{_of_module(results, 'a forged payment')}")
    if missed("paid-authz", "paid-upfront-authz", "paid-axum") and "least-authz" in rows:
        two, same, ours, authz = (cpu("paid", server) for server in (TWO, SAME, "filter", AUTHZ))
        signature = ""
        if parts:
            loop = parts["known"]["v8_us"]["median"]
            signature = (f"A signature of a payer seen before takes {loop:.0f} µs in a loop, and in a request {SIGNATURE} (by hand: so much less does a "
                         f"module take that leaves it out). With it alone {authz / (same + loop):.2f} or {authz / (same + SIGNATURE):.2f} would be left. ")
        found.append(
            f"**A paid request.** A filter that makes the same two calls, looks at no answer and changes nothing takes {two:.0f} µs and reaches "
            f"{reached('least-authz')} of `ext_authz` ({reached('least-upfront-authz')} with the one call of `upfront`). One that makes all the calls of "
            f"Envoy that a paid request makes (below), with as many bytes, and decides nothing, takes {same:.0f} µs and reaches {reached('same-authz')}. "
            f"{signature}The filter takes {ours:.0f}: JSON, base64 and hashes are some 140,000 instructions beside the signature, for which a request has "
            f"the caches to itself only once. Envoy's part is larger too than that of the filter that decides nothing, in all of its functions alike and "
            f"in none by more than 4 µs (by hand, by its unwind tables: the packaged build has no names).{_of_module(results, 'a paid request')}")
    if missed("sse"):
        found.append(
            f"**A metered stream.** Two filters one of which only fetches each chunk reach {reached('sse-least')} of the stream without them: parts of "
            f"an answer that come together pass as one. What costs is the payment: a stream of 20 chunks takes "
            f"{cpu('stream', 'metered, 20 chunks'):.0f} µs with it and {cpu('stream', 'Envoy alone, 20 chunks'):.0f} without, one of 200 "
            f"{cpu('stream', 'metered, 200 chunks'):.0f} and {cpu('stream', 'Envoy alone, 200 chunks'):.0f}.")
    if missed("ready"):
        found.append("**Ready after.** V8 compiles all of the module with its optimising compiler before Envoy takes a request, some 1.6 s of CPU time "
                     "on as many threads as there are cores; Envoy has no setting for that, and of the module nothing can be compiled later.")
    if not found:
        return ""
    return "## What is not met, and what bounds it\n\n" + "\n\n".join(found) + "\n\n" + TRIED
