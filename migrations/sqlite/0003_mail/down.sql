DROP TABLE mail_outbox;
DROP TABLE kept_addresses;
DROP TABLE pending_registrations;
-- What older versions do not know.
DELETE FROM one_time_secrets WHERE purpose <> 'set_password';
ALTER TABLE one_time_secrets DROP COLUMN address;
ALTER TABLE one_time_secrets DROP COLUMN code_hash;
ALTER TABLE one_time_secrets DROP COLUMN code_expires_at;
ALTER TABLE one_time_secrets DROP COLUMN tries;
ALTER TABLE one_time_secrets DROP COLUMN tries_since;
