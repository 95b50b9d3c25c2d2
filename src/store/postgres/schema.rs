//! The tables as PostgreSQL has them.

diesel::table! {
    users (id) {
        id -> Uuid,
        email -> Text,
        email_canonical -> Text,
        email_verified_at -> Nullable<Timestamptz>,
        username -> Nullable<Text>,
        username_canonical -> Nullable<Text>,
        password_hash -> Nullable<Text>,
        credential_version -> BigInt,
        attributes -> Jsonb,
        roles -> Array<Text>,
        status -> Text,
        deactivated_at -> Nullable<Timestamptz>,
        max_sessions -> Nullable<Integer>,
        on_session_limit -> Nullable<Text>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        provisional_until -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    sessions (id) {
        id -> Uuid,
        user_id -> Uuid,
        slot -> Integer,
        created_at -> Timestamptz,
        authenticated_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        expires_at -> Timestamptz,
        closed_at -> Nullable<Timestamptz>,
        close_reason -> Nullable<Text>,
        auth_methods -> Text,
        device_name -> Nullable<Text>,
        user_agent -> Nullable<Text>,
        address -> Nullable<Text>,
        generation -> BigInt,
        generation_used -> BigInt,
        refresh_hash -> Nullable<Binary>,
        refresh_previous -> Nullable<Binary>,
        rotated_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    one_time_secrets (id) {
        id -> Uuid,
        user_id -> Uuid,
        purpose -> Text,
        secret_hash -> Binary,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        used_at -> Nullable<Timestamptz>,
        address -> Nullable<Text>,
        code_hash -> Nullable<Binary>,
        code_expires_at -> Nullable<Timestamptz>,
        tries -> Integer,
        tries_since -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    pending_registrations (id) {
        id -> Uuid,
        email -> Text,
        email_canonical -> Text,
        username -> Nullable<Text>,
        attributes -> Jsonb,
        password_hash -> Text,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        link_hash -> Nullable<Binary>,
        link_expires_at -> Nullable<Timestamptz>,
        code_hash -> Nullable<Binary>,
        code_expires_at -> Nullable<Timestamptz>,
        tries -> Integer,
        tries_since -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    kept_addresses (address_canonical) {
        address_canonical -> Text,
        user_id -> Uuid,
        kept_until -> Timestamptz,
    }
}

diesel::table! {
    mail_outbox (id) {
        id -> Uuid,
        kind -> Text,
        user_id -> Nullable<Uuid>,
        registration_id -> Nullable<Uuid>,
        recipient -> Nullable<Text>,
        recipient_canonical -> Nullable<Text>,
        language -> Nullable<Text>,
        details -> Text,
        credential_version -> Nullable<BigInt>,
        created_at -> Timestamptz,
        state -> Text,
        attempts -> Integer,
        due_at -> Timestamptz,
        leased_until -> Nullable<Timestamptz>,
        fence -> BigInt,
        last_error -> Nullable<Text>,
        settled_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    roles (name) {
        name -> Text,
        permissions -> Array<Text>,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    rate_limits (key_hash) {
        key_hash -> Binary,
        account_hash -> Nullable<Binary>,
        tat -> Timestamptz,
        failures -> Integer,
        blocked_until -> Timestamptz,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    devices (secret_hash) {
        secret_hash -> Binary,
        user_id -> Uuid,
        created_at -> Timestamptz,
        last_used_at -> Timestamptz,
        expires_at -> Timestamptz,
    }
}

diesel::table! {
    guards (name) {
        name -> Text,
    }
}

diesel::table! {
    leases (name) {
        name -> Text,
        holder -> Uuid,
        held_until -> Timestamptz,
    }
}

diesel::table! {
    audit_events (id) {
        id -> Uuid,
        at -> Timestamptz,
        event -> Text,
        outcome -> Text,
        reason -> Nullable<Text>,
        actor -> Text,
        actor_id -> Nullable<Uuid>,
        actor_session -> Nullable<Uuid>,
        subject_id -> Nullable<Uuid>,
        session_id -> Nullable<Uuid>,
        request_id -> Nullable<Text>,
        person_id -> Nullable<Uuid>,
        details -> Nullable<Binary>,
        facts -> Nullable<Text>,
        seq -> Nullable<BigInt>,
        seal -> Nullable<Binary>,
    }
}

diesel::table! {
    audit_marks (name) {
        name -> Text,
        seq -> BigInt,
        seal -> Binary,
        at -> Timestamptz,
        signature -> Binary,
    }
}

diesel::table! {
    audit_keys (user_id) {
        user_id -> Uuid,
        key -> Nullable<Binary>,
    }
}

diesel::joinable!(sessions -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(sessions, users);
diesel::allow_tables_to_appear_in_same_query!(one_time_secrets, mail_outbox);
