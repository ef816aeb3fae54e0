-- Requests of a fleet that have said that they have ended: a call of theirs that comes later takes no claim.
CREATE TABLE ended_requests (
    -- As Envoy names it.
    holder TEXT PRIMARY KEY,
    ended_at BIGINT NOT NULL
);
CREATE INDEX ended_requests_at ON ended_requests (ended_at);
