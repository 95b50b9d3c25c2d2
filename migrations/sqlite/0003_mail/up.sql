-- A secret that was mailed may have a code besides its link, and is good for one address.
ALTER TABLE one_time_secrets ADD COLUMN address TEXT;
ALTER TABLE one_time_secrets ADD COLUMN code_hash BLOB;
ALTER TABLE one_time_secrets ADD COLUMN code_expires_at INTEGER;
ALTER TABLE one_time_secrets ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE one_time_secrets ADD COLUMN tries_since INTEGER;

-- Registrations that become accounts once their address is confirmed.
CREATE TABLE pending_registrations (
    id               BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    email            TEXT NOT NULL,
    email_canonical  TEXT NOT NULL,
    username         TEXT,
    attributes       TEXT NOT NULL,
    password_hash    TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    expires_at       INTEGER NOT NULL,
    link_hash        BLOB,
    link_expires_at  INTEGER,
    code_hash        BLOB,
    code_expires_at  INTEGER,
    tries            INTEGER NOT NULL,
    tries_since      INTEGER,
    CONSTRAINT pending_registrations_link_key UNIQUE (link_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_registrations_of_address ON pending_registrations (email_canonical, created_at);

-- Addresses that accounts have left, kept for them until the notice that was sent there is worth nothing.
CREATE TABLE kept_addresses (
    address_canonical  TEXT PRIMARY KEY NOT NULL,
    user_id            BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kept_until         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- No reference to users: a letter outlives whom it is about, and is dropped when it is to be sent.
CREATE TABLE mail_outbox (
    id                   BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    kind                 TEXT NOT NULL,
    user_id              BLOB,
    registration_id      BLOB,
    recipient            TEXT,
    recipient_canonical  TEXT,
    language             TEXT,
    details              TEXT NOT NULL,
    credential_version   INTEGER,
    created_at           INTEGER NOT NULL,
    state                TEXT NOT NULL,
    attempts             INTEGER NOT NULL,
    due_at               INTEGER NOT NULL,
    leased_until         INTEGER,
    fence                INTEGER NOT NULL,
    last_error           TEXT,
    settled_at           INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX mail_outbox_due ON mail_outbox (due_at) WHERE state = 'waiting';
CREATE INDEX mail_outbox_of_user ON mail_outbox (user_id) WHERE state = 'waiting';
CREATE INDEX mail_outbox_of_recipient ON mail_outbox (recipient_canonical, kind, created_at);
