-- Money is BIGINT, in micro-dollars. Times are BIGINT, in Unix milliseconds; 0 is "never".
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE tenants (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- Sums over credit_transactions, kept so that one conditional UPDATE reserves. `x402-ledger check` proves them.
    available BIGINT NOT NULL DEFAULT 0 CHECK (available >= 0),
    reserved BIGINT NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    created_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
    -- SHA-256 of the key, which itself is nowhere.
    hash TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    label TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL DEFAULT 0
);

-- Each row moves `amount` from the account `debit` to the account `credit`. Of a tenant are `available` and `reserved`.
CREATE TABLE credit_transactions (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    kind TEXT NOT NULL CHECK (kind IN ('x402_topup', 'usage', 'reservation', 'refund', 'adjustment')),
    debit TEXT NOT NULL CHECK (debit IN ('available', 'reserved', 'x402', 'revenue', 'adjustments')),
    credit TEXT NOT NULL CHECK (credit IN ('available', 'reserved', 'x402', 'revenue', 'adjustments')),
    amount BIGINT NOT NULL CHECK (amount > 0),
    -- What the tenant has available after this row.
    balance_after BIGINT NOT NULL CHECK (balance_after >= 0),
    -- A top-up's id, a reservation's, or an adjustment's: each is written of once.
    reference TEXT NOT NULL,
    -- CAIP-2 network and transaction of a top-up, as `eip155:8453/0x…`; the reason of an adjustment.
    payment TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    CHECK (debit <> credit),
    UNIQUE (kind, reference)
);
CREATE INDEX credit_transactions_of ON credit_transactions (tenant, seq);

CREATE FUNCTION credit_transactions_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'credit_transactions is append-only';
END;
$$;
CREATE TRIGGER credit_transactions_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_transactions
FOR EACH STATEMENT EXECUTE FUNCTION credit_transactions_kept();

CREATE TABLE reservations (
    -- Chosen by the filter.
    id TEXT PRIMARY KEY,
    -- Empty where it was given up before it came.
    tenant TEXT NOT NULL,
    amount BIGINT NOT NULL,
    captured BIGINT NOT NULL DEFAULT 0,
    state TEXT NOT NULL CHECK (state IN ('open', 'captured', 'released', 'lapsed', 'refused')),
    route TEXT NOT NULL,
    -- The window of limits.account that it is counted in.
    window_ms BIGINT NOT NULL DEFAULT 0,
    window_ends_at BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX reservations_open ON reservations (expires_at) WHERE state = 'open';
CREATE INDEX reservations_ended ON reservations (ended_at) WHERE state <> 'open';

-- What limits.account counts: a window begins with the first request in it.
CREATE TABLE account_windows (
    tenant TEXT NOT NULL REFERENCES tenants (id),
    window_ms BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    spend BIGINT NOT NULL,
    PRIMARY KEY (tenant, window_ms)
);

CREATE TABLE topups (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    amount BIGINT NOT NULL CHECK (amount > 0),
    source TEXT NOT NULL CHECK (source IN ('fund', 'request')),
    state TEXT NOT NULL CHECK (state IN ('created', 'processing', 'unknown', 'settled', 'failed')),
    -- What is spent once, hashed: the same payment credits once, whoever sends it how often.
    claim TEXT UNIQUE,
    -- The body of /settle, encrypted; erased when the outcome is known.
    payload TEXT NOT NULL DEFAULT '',
    requirements TEXT NOT NULL DEFAULT '',
    resource TEXT NOT NULL,
    network TEXT NOT NULL DEFAULT '',
    payer TEXT NOT NULL DEFAULT '',
    transaction_id TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    attempts BIGINT NOT NULL DEFAULT 0,
    next_attempt_at BIGINT NOT NULL DEFAULT 0,
    lease_until BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX topups_of ON topups (tenant, created_at);
CREATE INDEX topups_open ON topups (state, created_at) WHERE state IN ('created', 'processing', 'unknown');
