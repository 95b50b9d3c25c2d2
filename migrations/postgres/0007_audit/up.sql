-- Behind a long reader this would hold up every other one; better to fail and try again.
SET LOCAL lock_timeout = '3s';
-- What happened. `details` are encrypted with the key of `person_id`, or with that of nobody in particular.
CREATE TABLE audit_events (
    id             uuid PRIMARY KEY,
    at             timestamptz NOT NULL,
    event          text NOT NULL,
    outcome        text NOT NULL,
    reason         text,
    actor          text NOT NULL,
    actor_id       uuid,
    actor_session  uuid,
    subject_id     uuid,
    session_id     uuid,
    request_id     text,
    person_id      uuid,
    details        bytea,
    facts          text,
    seq            bigint,
    seal           bytea,
    CHECK ((seq IS NULL) = (seal IS NULL))
);
CREATE UNIQUE INDEX audit_events_seq ON audit_events (seq) WHERE seq IS NOT NULL;
CREATE INDEX audit_events_unsealed ON audit_events (id) WHERE seq IS NULL;
CREATE INDEX audit_events_subject ON audit_events (subject_id, id) WHERE subject_id IS NOT NULL;
CREATE INDEX audit_events_actor ON audit_events (actor_id, id) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_events_session ON audit_events (session_id, id) WHERE session_id IS NOT NULL;
CREATE INDEX audit_events_actor_session ON audit_events (actor_session, id) WHERE actor_session IS NOT NULL;

-- Places of the chain of seals, signed: its head, and up to where records were removed for their age.
CREATE TABLE audit_marks (
    name       text PRIMARY KEY,
    seq        bigint NOT NULL,
    seal       bytea NOT NULL,
    at         timestamptz NOT NULL,
    signature  bytea NOT NULL
);

-- The wrapped key of each person's details; null once the person was erased, and for good.
CREATE TABLE audit_keys (
    user_id  uuid PRIMARY KEY,
    key      bytea
);

-- Records are added, sealed once and removed behind the checkpoint; nothing else, whoever asks.
CREATE FUNCTION audit_events_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
        AND OLD.seq IS NULL
        AND NEW.seq IS NOT NULL
        AND ROW(OLD.id, OLD.at, OLD.event, OLD.outcome, OLD.reason, OLD.actor, OLD.actor_id, OLD.actor_session,
                OLD.subject_id, OLD.session_id, OLD.request_id, OLD.person_id, OLD.details, OLD.facts)
            IS NOT DISTINCT FROM
            ROW(NEW.id, NEW.at, NEW.event, NEW.outcome, NEW.reason, NEW.actor, NEW.actor_id, NEW.actor_session,
                NEW.subject_id, NEW.session_id, NEW.request_id, NEW.person_id, NEW.details, NEW.facts)
    THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE'
        AND OLD.seq <= (SELECT seq FROM audit_marks WHERE name = 'checkpoint')
    THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit records are neither changed nor removed';
END
$$;
CREATE TRIGGER audit_events_keep BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION audit_events_keep();
CREATE TRIGGER audit_events_keep_all BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION audit_events_keep();
