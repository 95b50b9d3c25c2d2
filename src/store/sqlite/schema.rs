//! The tables as SQLite has them.

diesel::table! {
    users (id) {
        id -> Binary,
        email -> Text,
        email_canonical -> Text,
        email_verified_at -> Nullable<BigInt>,
        username -> Nullable<Text>,
        username_canonical -> Nullable<Text>,
        password_hash -> Nullable<Text>,
        credential_version -> BigInt,
        attributes -> Text,
        roles -> Text,
        status -> Text,
        deactivated_at -> Nullable<BigInt>,
        max_sessions -> Nullable<Integer>,
        on_session_limit -> Nullable<Text>,
        created_at -> BigInt,
        updated_at -> BigInt,
        provisional_until -> Nullable<BigInt>,
    }
}

diesel::table! {
    sessions (id) {
        id -> Binary,
        user_id -> Binary,
        slot -> Integer,
        created_at -> BigInt,
        authenticated_at -> BigInt,
        last_seen_at -> BigInt,
        expires_at -> BigInt,
        closed_at -> Nullable<BigInt>,
        close_reason -> Nullable<Text>,
        auth_methods -> Text,
        device_name -> Nullable<Text>,
        user_agent -> Nullable<Text>,
        address -> Nullable<Text>,
        generation -> BigInt,
        generation_used -> BigInt,
        refresh_hash -> Nullable<Binary>,
        refresh_previous -> Nullable<Binary>,
        rotated_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    one_time_secrets (id) {
        id -> Binary,
        user_id -> Binary,
        purpose -> Text,
        secret_hash -> Binary,
        created_at -> BigInt,
        expires_at -> BigInt,
        used_at -> Nullable<BigInt>,
        address -> Nullable<Text>,
        code_hash -> Nullable<Binary>,
        code_expires_at -> Nullable<BigInt>,
        tries -> Integer,
        tries_since -> Nullable<BigInt>,
    }
}

diesel::table! {
    pending_registrations (id) {
        id -> Binary,
        email -> Text,
        email_canonical -> Text,
        username -> Nullable<Text>,
        attributes -> Text,
        password_hash -> Text,
        created_at -> BigInt,
        expires_at -> BigInt,
        link_hash -> Nullable<Binary>,
        link_expires_at -> Nullable<BigInt>,
        code_hash -> Nullable<Binary>,
        code_expires_at -> Nullable<BigInt>,
        tries -> Integer,
        tries_since -> Nullable<BigInt>,
    }
}

diesel::table! {
    kept_addresses (address_canonical) {
        address_canonical -> Text,
        user_id -> Binary,
        kept_until -> BigInt,
    }
}

diesel::table! {
    mail_outbox (id) {
        id -> Binary,
        kind -> Text,
        user_id -> Nullable<Binary>,
        registration_id -> Nullable<Binary>,
        recipient -> Nullable<Text>,
        recipient_canonical -> Nullable<Text>,
        language -> Nullable<Text>,
        details -> Text,
        credential_version -> Nullable<BigInt>,
        created_at -> BigInt,
        state -> Text,
        attempts -> Integer,
        due_at -> BigInt,
        leased_until -> Nullable<BigInt>,
        fence -> BigInt,
        last_error -> Nullable<Text>,
        settled_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    roles (name) {
        name -> Text,
        permissions -> Text,
        updated_at -> BigInt,
    }
}

diesel::table! {
    rate_limits (key_hash) {
        key_hash -> Binary,
        account_hash -> Nullable<Binary>,
        tat -> BigInt,
        failures -> Integer,
        blocked_until -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    devices (secret_hash) {
        secret_hash -> Binary,
        user_id -> Binary,
        created_at -> BigInt,
        last_used_at -> BigInt,
        expires_at -> BigInt,
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
        holder -> Binary,
        held_until -> BigInt,
    }
}

diesel::table! {
    audit_events (id) {
        id -> Binary,
        at -> BigInt,
        event -> Text,
        outcome -> Text,
        reason -> Nullable<Text>,
        actor -> Text,
        actor_id -> Nullable<Binary>,
        actor_session -> Nullable<Binary>,
        subject_id -> Nullable<Binary>,
        session_id -> Nullable<Binary>,
        request_id -> Nullable<Text>,
        person_id -> Nullable<Binary>,
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
        at -> BigInt,
        signature -> Binary,
    }
}

diesel::table! {
    audit_keys (user_id) {
        user_id -> Binary,
        key -> Nullable<Binary>,
    }
}

diesel::joinable!(sessions -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(sessions, users);
diesel::allow_tables_to_appear_in_same_query!(one_time_secrets, mail_outbox);
