DROP TABLE audit_keys;
DROP TABLE audit_events;
DROP TABLE audit_marks;
DROP FUNCTION audit_events_keep();
