-- Behind a long reader this would hold up every other one; better to fail and try again.
SET LOCAL lock_timeout = '3s';
-- Refresh tokens are stored as hashes: the current one and the one before. A session in a cookie has
-- none.
ALTER TABLE sessions
    ADD COLUMN generation        bigint NOT NULL DEFAULT 0,
    ADD COLUMN generation_used   bigint NOT NULL DEFAULT 0,
    ADD COLUMN refresh_hash      bytea,
    ADD COLUMN refresh_previous  bytea,
    ADD COLUMN rotated_at        timestamptz;
