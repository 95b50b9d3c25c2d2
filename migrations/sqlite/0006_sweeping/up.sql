-- Which node does what only one at a time is to do.
CREATE TABLE leases (
    name        TEXT PRIMARY KEY NOT NULL,
    holder      BLOB NOT NULL CHECK (length(holder) = 16),
    held_until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Until when an account may wait for its address to be verified; null for those that stay.
ALTER TABLE users ADD COLUMN provisional_until INTEGER;

-- By what is over first.
CREATE INDEX users_provisional ON users (provisional_until) WHERE provisional_until IS NOT NULL;
CREATE INDEX sessions_ending ON sessions (expires_at);
CREATE INDEX one_time_secrets_ending ON one_time_secrets (expires_at);
CREATE INDEX pending_registrations_ending ON pending_registrations (expires_at);
CREATE INDEX kept_addresses_ending ON kept_addresses (kept_until);
CREATE INDEX mail_outbox_settled ON mail_outbox (settled_at) WHERE settled_at IS NOT NULL;
