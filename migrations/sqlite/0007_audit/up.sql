-- What happened. `details` are encrypted with the key of `person_id`, or with that of nobody in particular.
CREATE TABLE audit_events (
    id             BLOB PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    at             INTEGER NOT NULL,
    event          TEXT NOT NULL,
    outcome        TEXT NOT NULL,
    reason         TEXT,
    actor          TEXT NOT NULL,
    actor_id       BLOB CHECK (length(actor_id) = 16),
    actor_session  BLOB CHECK (length(actor_session) = 16),
    subject_id     BLOB CHECK (length(subject_id) = 16),
    session_id     BLOB CHECK (length(session_id) = 16),
    request_id     TEXT,
    person_id      BLOB CHECK (length(person_id) = 16),
    details        BLOB,
    facts          TEXT,
    seq            INTEGER,
    seal           BLOB,
    CHECK ((seq IS NULL) = (seal IS NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX audit_events_seq ON audit_events (seq) WHERE seq IS NOT NULL;
CREATE INDEX audit_events_unsealed ON audit_events (id) WHERE seq IS NULL;
CREATE INDEX audit_events_subject ON audit_events (subject_id, id) WHERE subject_id IS NOT NULL;
CREATE INDEX audit_events_actor ON audit_events (actor_id, id) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_events_session ON audit_events (session_id, id) WHERE session_id IS NOT NULL;
CREATE INDEX audit_events_actor_session ON audit_events (actor_session, id) WHERE actor_session IS NOT NULL;

-- Places of the chain of seals, signed: its head, and up to where records were removed for their age.
CREATE TABLE audit_marks (
    name       TEXT PRIMARY KEY NOT NULL,
    seq        INTEGER NOT NULL,
    seal       BLOB NOT NULL,
    at         INTEGER NOT NULL,
    signature  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The wrapped key of each person's details; null once the person was erased, and for good.
CREATE TABLE audit_keys (
    user_id  BLOB PRIMARY KEY NOT NULL CHECK (length(user_id) = 16),
    key      BLOB
) STRICT, WITHOUT ROWID;

-- Records are added, sealed once and removed behind the checkpoint; nothing else, whoever asks.
CREATE TRIGGER audit_events_keep BEFORE UPDATE ON audit_events
WHEN NOT (
    OLD.seq IS NULL AND NEW.seq IS NOT NULL
    AND OLD.id IS NEW.id AND OLD.at IS NEW.at AND OLD.event IS NEW.event AND OLD.outcome IS NEW.outcome
    AND OLD.reason IS NEW.reason AND OLD.actor IS NEW.actor AND OLD.actor_id IS NEW.actor_id
    AND OLD.actor_session IS NEW.actor_session AND OLD.subject_id IS NEW.subject_id
    AND OLD.session_id IS NEW.session_id AND OLD.request_id IS NEW.request_id
    AND OLD.person_id IS NEW.person_id AND OLD.details IS NEW.details AND OLD.facts IS NEW.facts
)
BEGIN
    SELECT RAISE(ABORT, 'audit records are not changed');
END;
CREATE TRIGGER audit_events_keep_all BEFORE DELETE ON audit_events
WHEN OLD.seq IS NULL
    OR OLD.seq > coalesce((SELECT seq FROM audit_marks WHERE name = 'checkpoint'), 0)
BEGIN
    SELECT RAISE(ABORT, 'audit records are not removed');
END;
