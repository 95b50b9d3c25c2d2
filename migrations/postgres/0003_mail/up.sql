-- Behind a long reader this would hold up every other one; better to fail and try again.
SET LOCAL lock_timeout = '3s';
-- A secret that was mailed may have a code besides its link, and is good for one address.
ALTER TABLE one_time_secrets
    ADD COLUMN address          text,
    ADD COLUMN code_hash        bytea,
    ADD COLUMN code_expires_at  timestamptz,
    ADD COLUMN tries            integer NOT NULL DEFAULT 0,
    ADD COLUMN tries_since      timestamptz;

-- Registrations that become accounts once their address is confirmed.
CREATE TABLE pending_registrations (
    id               uuid PRIMARY KEY,
    email            text NOT NULL,
    email_canonical  text NOT NULL,
    username         text,
    attributes       jsonb NOT NULL,
    password_hash    text NOT NULL,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    link_hash        bytea,
    link_expires_at  timestamptz,
    code_hash        bytea,
    code_expires_at  timestamptz,
    tries            integer NOT NULL,
    tries_since      timestamptz,
    CONSTRAINT pending_registrations_link_key UNIQUE (link_hash)
);
CREATE INDEX pending_registrations_of_address ON pending_registrations (email_canonical, created_at);

-- Addresses that accounts have left, kept for them until the notice that was sent there is worth nothing.
CREATE TABLE kept_addresses (
    address_canonical  text PRIMARY KEY,
    user_id            uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kept_until         timestamptz NOT NULL
);

-- No reference to users: a letter outlives whom it is about, and is dropped when it is to be sent.
CREATE TABLE mail_outbox (
    id                   uuid PRIMARY KEY,
    kind                 text NOT NULL,
    user_id              uuid,
    registration_id      uuid,
    recipient            text,
    recipient_canonical  text,
    language             text,
    details              text NOT NULL,
    credential_version   bigint,
    created_at           timestamptz NOT NULL,
    state                text NOT NULL,
    attempts             integer NOT NULL,
    due_at               timestamptz NOT NULL,
    leased_until         timestamptz,
    fence                bigint NOT NULL,
    last_error           text,
    settled_at           timestamptz
);
CREATE INDEX mail_outbox_due ON mail_outbox (due_at) WHERE state = 'waiting';
CREATE INDEX mail_outbox_of_user ON mail_outbox (user_id) WHERE state = 'waiting';
CREATE INDEX mail_outbox_of_recipient ON mail_outbox (recipient_canonical, kind, created_at);
