-- Ids are 16 bytes, times are milliseconds since 1970, roles and attributes are JSON.
CREATE TABLE users (
    id                  BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    email               TEXT NOT NULL,
    email_canonical     TEXT NOT NULL,
    email_verified_at   INTEGER,
    username            TEXT,
    username_canonical  TEXT,
    password_hash       TEXT,
    credential_version  INTEGER NOT NULL,
    attributes          TEXT NOT NULL,
    roles               TEXT NOT NULL,
    status              TEXT NOT NULL,
    deactivated_at      INTEGER,
    max_sessions        INTEGER,
    on_session_limit    TEXT,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    CONSTRAINT users_username_key UNIQUE (username_canonical),
    -- Declared last, checked first: of two taken names the address is the one that is said.
    CONSTRAINT users_email_key UNIQUE (email_canonical),
    CONSTRAINT users_username_whole CHECK ((username IS NULL) = (username_canonical IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    id                BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    user_id           BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    slot              INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    authenticated_at  INTEGER NOT NULL,
    last_seen_at      INTEGER NOT NULL,
    expires_at        INTEGER NOT NULL,
    closed_at         INTEGER,
    close_reason      TEXT,
    auth_methods      TEXT NOT NULL,
    device_name       TEXT,
    user_agent        TEXT,
    address           TEXT,
    CONSTRAINT sessions_closed_whole CHECK ((closed_at IS NULL) = (close_reason IS NULL))
) STRICT, WITHOUT ROWID;

-- The single-login invariant: an open session holds one of its user's slots.
CREATE UNIQUE INDEX sessions_open_slot ON sessions (user_id, slot) WHERE closed_at IS NULL;
CREATE INDEX sessions_of_user ON sessions (user_id, created_at);

CREATE TABLE one_time_secrets (
    id           BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    user_id      BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose      TEXT NOT NULL,
    secret_hash  BLOB NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_at      INTEGER,
    CONSTRAINT one_time_secrets_hash_key UNIQUE (secret_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX one_time_secrets_of_user ON one_time_secrets (user_id);

-- Rows that serialise decisions over many users.
CREATE TABLE guards (name TEXT PRIMARY KEY NOT NULL) STRICT;
INSERT INTO guards (name) VALUES ('last_admin');
