DROP TABLE mail_outbox;
DROP TABLE kept_addresses;
DROP TABLE pending_registrations;
-- What older versions do not know.
DELETE FROM one_time_secrets WHERE purpose <> 'set_password';
ALTER TABLE one_time_secrets
    DROP COLUMN address,
    DROP COLUMN code_hash,
    DROP COLUMN code_expires_at,
    DROP COLUMN tries,
    DROP COLUMN tries_since;
