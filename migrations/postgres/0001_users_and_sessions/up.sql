CREATE TABLE users (
    id                  uuid PRIMARY KEY,
    email               text NOT NULL,
    email_canonical     text NOT NULL,
    email_verified_at   timestamptz,
    username            text,
    username_canonical  text,
    password_hash       text,
    credential_version  bigint NOT NULL,
    attributes          jsonb NOT NULL,
    roles               text[] NOT NULL,
    status              text NOT NULL,
    deactivated_at      timestamptz,
    max_sessions        integer,
    on_session_limit    text,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    CONSTRAINT users_email_key UNIQUE (email_canonical),
    CONSTRAINT users_username_key UNIQUE (username_canonical),
    CONSTRAINT users_username_whole CHECK ((username IS NULL) = (username_canonical IS NULL)),
    CONSTRAINT users_roles_named CHECK (array_position(roles, NULL) IS NULL)
);

CREATE TABLE sessions (
    id                uuid PRIMARY KEY,
    user_id           uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    slot              integer NOT NULL,
    created_at        timestamptz NOT NULL,
    authenticated_at  timestamptz NOT NULL,
    last_seen_at      timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL,
    closed_at         timestamptz,
    close_reason      text,
    auth_methods      text NOT NULL,
    device_name       text,
    user_agent        text,
    address           text,
    CONSTRAINT sessions_closed_whole CHECK ((closed_at IS NULL) = (close_reason IS NULL))
);

-- The single-login invariant: an open session holds one of its user's slots.
CREATE UNIQUE INDEX sessions_open_slot ON sessions (user_id, slot) WHERE closed_at IS NULL;
CREATE INDEX sessions_of_user ON sessions (user_id, created_at);

CREATE TABLE one_time_secrets (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose      text NOT NULL,
    secret_hash  bytea NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz,
    CONSTRAINT one_time_secrets_hash_key UNIQUE (secret_hash)
);
CREATE INDEX one_time_secrets_of_user ON one_time_secrets (user_id);

-- Rows that serialise decisions over many users.
CREATE TABLE guards (name text PRIMARY KEY);
INSERT INTO guards (name) VALUES ('last_admin');
