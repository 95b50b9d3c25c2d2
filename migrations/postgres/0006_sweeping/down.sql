DROP INDEX mail_outbox_settled;
DROP INDEX kept_addresses_ending;
DROP INDEX pending_registrations_ending;
DROP INDEX one_time_secrets_ending;
DROP INDEX sessions_ending;
DROP INDEX users_provisional;
ALTER TABLE users DROP COLUMN provisional_until;
DROP TABLE leases;
