-- How often what was done; keys are keyed hashes, so that a copy of the table names nobody. What is past
-- its time counts as if it were not there.
CREATE TABLE rate_limits (
    key_hash       bytea PRIMARY KEY,
    account_hash   bytea,
    tat            timestamptz NOT NULL,
    failures       integer NOT NULL,
    blocked_until  timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL
);
CREATE INDEX rate_limits_of_account ON rate_limits (account_hash) WHERE account_hash IS NOT NULL;
CREATE INDEX rate_limits_expired ON rate_limits (expires_at);

-- Devices that somebody has logged in from.
CREATE TABLE devices (
    secret_hash   bytea PRIMARY KEY,
    user_id       uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at    timestamptz NOT NULL,
    last_used_at  timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL
);
CREATE INDEX devices_of_user ON devices (user_id);
CREATE INDEX devices_expired ON devices (expires_at);
