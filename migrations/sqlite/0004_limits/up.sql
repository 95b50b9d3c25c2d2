-- How often what was done; keys are keyed hashes, so that a copy of the table names nobody. What is past
-- its time counts as if it were not there.
CREATE TABLE rate_limits (
    key_hash       BLOB PRIMARY KEY NOT NULL CHECK (length(key_hash) = 32),
    account_hash   BLOB,
    tat            INTEGER NOT NULL,
    failures       INTEGER NOT NULL,
    blocked_until  INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX rate_limits_of_account ON rate_limits (account_hash) WHERE account_hash IS NOT NULL;
CREATE INDEX rate_limits_expired ON rate_limits (expires_at);

-- Devices that somebody has logged in from.
CREATE TABLE devices (
    secret_hash   BLOB PRIMARY KEY NOT NULL CHECK (length(secret_hash) = 32),
    user_id       BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at    INTEGER NOT NULL,
    last_used_at  INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_of_user ON devices (user_id);
CREATE INDEX devices_expired ON devices (expires_at);
