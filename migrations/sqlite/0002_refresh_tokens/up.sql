-- Refresh tokens are stored as hashes: the current one and the one before. A session in a cookie has
-- none.
ALTER TABLE sessions ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN generation_used INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN refresh_hash BLOB;
ALTER TABLE sessions ADD COLUMN refresh_previous BLOB;
ALTER TABLE sessions ADD COLUMN rotated_at INTEGER;
