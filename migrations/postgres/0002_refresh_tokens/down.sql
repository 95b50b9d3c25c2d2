-- What was not known before.
UPDATE sessions SET close_reason = 'revoked' WHERE close_reason = 'refresh_reused';
ALTER TABLE sessions
    DROP COLUMN generation,
    DROP COLUMN generation_used,
    DROP COLUMN refresh_hash,
    DROP COLUMN refresh_previous,
    DROP COLUMN rotated_at;
