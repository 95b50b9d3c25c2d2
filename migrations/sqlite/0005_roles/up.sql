-- Roles that administrators make; permissions are a JSON list. No reference from users: they may hold names
-- that are defined elsewhere, or nowhere.
CREATE TABLE roles (
    name         TEXT PRIMARY KEY NOT NULL,
    permissions  TEXT NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
