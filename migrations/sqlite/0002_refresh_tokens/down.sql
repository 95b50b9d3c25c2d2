-- What was not known before.
UPDATE sessions SET close_reason = 'revoked' WHERE close_reason = 'refresh_reused';
ALTER TABLE sessions DROP COLUMN generation;
ALTER TABLE sessions DROP COLUMN generation_used;
ALTER TABLE sessions DROP COLUMN refresh_hash;
ALTER TABLE sessions DROP COLUMN refresh_previous;
ALTER TABLE sessions DROP COLUMN rotated_at;
