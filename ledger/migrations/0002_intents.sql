-- Payments of requests without an API key, where a fleet of Envoys shares its claims: one row for what can be spent once.
CREATE TABLE intents (
    claim TEXT PRIMARY KEY,
    -- The request that has it, as Envoy names it.
    holder TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('held', 'settling', 'unknown', 'settled', 'failed', 'released')),
    -- 1: what it pays for has been had.
    delivered BIGINT NOT NULL DEFAULT 0,
    facilitator TEXT NOT NULL,
    -- What tells this payment from another one that spends the same, hashed: a signature is in it.
    identity TEXT NOT NULL DEFAULT '',
    network TEXT NOT NULL DEFAULT '',
    scheme TEXT NOT NULL DEFAULT '',
    payer TEXT NOT NULL DEFAULT '',
    -- In the token's smallest unit: what is asked for, and what has been reported as due so far.
    amount TEXT NOT NULL DEFAULT '',
    used TEXT NOT NULL DEFAULT '',
    -- The body of /settle, encrypted; erased when the outcome is known.
    payload TEXT NOT NULL DEFAULT '',
    -- What the facilitator answered when it was settled: the receipt.
    answer TEXT NOT NULL DEFAULT '',
    transaction_id TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    attempts BIGINT NOT NULL DEFAULT 0,
    next_attempt_at BIGINT NOT NULL DEFAULT 0,
    lease_until BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- When the payment itself runs out.
    expires_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX intents_of ON intents (holder);
CREATE INDEX intents_ended ON intents (expires_at) WHERE state IN ('settled', 'failed', 'released');
CREATE INDEX intents_open ON intents (state, lease_until) WHERE state IN ('held', 'settling', 'unknown');
