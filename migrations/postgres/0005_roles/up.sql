-- Roles that administrators make. No reference from users: they may hold names that are defined elsewhere, or
-- nowhere.
CREATE TABLE roles (
    name         text PRIMARY KEY,
    permissions  text[] NOT NULL,
    updated_at   timestamptz NOT NULL,
    CONSTRAINT roles_permissions_named CHECK (array_position(permissions, NULL) IS NULL)
);
