"""What keeps a figure from its goal: said with what was measured in the same go."""

from __future__ import annotations

from .rows import Json, Row

TRIED = """What was tried, and its effect:

| what | effect |
| --- | --- |
| all headers fetched at once; none where the reader has nothing to read; challenges kept for whoever asks the same | kept: on a busy machine a challenge took 119 µs, and takes 52 |
| one look at the clock for a callback; names of metrics and marks made once | kept: 13 of 63 calls of Envoy fewer for a paid request |
| payments read without copying their strings | kept: 41,000 instructions instead of 59,000 |
| the settlement sent from the callback that holds the answer, not at the root context's next tick | kept: 3 to 4 ms sooner; the CPU time is the same |
| arithmetic of our own for signatures (k256 with 32-bit limbs took 5.0 × libsecp256k1's native time) | kept |
| `opt-level = "s"` | 37 KiB less, a challenge 28 % dearer: not kept |
| inlining up to LLVM's bound of 80 instead of 10 | 30 KiB more, no faster: not kept |
| `wasm-opt -Oz`, or without inlining what is called once | V8 compiles it no faster: not kept |
"""


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
            f"{cpu('challenge', 'constant filter'):.0f}, the gate alone {cpu('challenge', 'gate alone'):.0f}: it has to fetch the headers, and to "
            f"count. The callbacks of the reader, which does nothing, take another "
            f"{cpu('challenge', 'filter') - cpu('challenge', 'gate alone'):.0f}; a listener without prices that depend on bodies can leave it out.")
    if missed("challenge-axum"):
        found.append(f"**Against x402-axum.** Envoy's `direct_response` reaches {reached('direct-axum')} of it: no filter can reach more. And "
                     f"`ext_authz`, which asks once and checks nothing, reaches {reached('authz-axum')} of a whole payment there.")
    if missed("free-noop"):
        found.append(f"**A request without a price.** It costs the gate one fetch of the headers and a look at the clock, and the reader its "
                     f"callbacks: two filters that do nothing take {cpu('free', 'two no-op filters'):.0f} µs, one takes "
                     f"{cpu('free', 'no-op filter'):.0f}, reader and gate {cpu('free', 'filter'):.0f}, the gate alone {cpu('free', 'gate alone'):.0f}.")
    parts = results.get("parts", {}).get("raw", {}).get("parts", {})
    if missed("forged-direct") and parts:
        found.append(f"**A forged payment** costs {cpu('forged', 'filter'):.0f} µs: a challenge, its header decoded "
                     f"({parts['decode']['v8_us']['median']:.0f} µs), and one recovery ({parts['recover']['v8_us']['median']:.0f} µs in a loop), "
                     f"which nothing can spare it.")
    if missed("paid-authz", "paid-upfront-authz", "paid-axum") and "least-authz" in rows:
        signature = f", {parts['known']['v8_us']['median']:.0f} µs in a loop for a payer seen before," if parts else ""
        found.append(
            f"**A paid request.** Two filters that make the same two calls, look at no answer and change nothing reach "
            f"{reached('least-authz')} of `ext_authz` ({reached('least-upfront-authz')} with the one call of `upfront`): that bounds any filter. They "
            f"take {cpu('paid', 'two calls and no more'):.0f} µs, the filter {cpu('paid', 'filter'):.0f}. What lies between: the signature"
            f"{signature} the other calls of Envoy below, JSON and hashes (some 150,000 instructions beside the signature), and the caches: Envoy's "
            f"own functions and V8's code for the module share them, and `perf` finds no function with more than 3 % of the time.")
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
