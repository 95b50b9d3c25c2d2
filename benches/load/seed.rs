//! Filling a database: one user and one session through the store, all others as copies that the database
//! makes of them by itself, so that millions take minutes and every column is as Doorward writes it.

use std::sync::Arc;

use diesel::{Connection, RunQueryDsl, connection::SimpleConnection, sqlite::SqliteConnection};
use doorward::{
    clock::Timestamp,
    email::EmailAddress,
    ids::{SessionId, UserId},
    model::{
        audit::{Agent, Occasion},
        session::{AuthMethod, Device, IdleRule, NewSession},
        token::SecretHash,
        user::{Attributes, NewUser, Roles, SessionLimitOverride, User, UserStatus},
    },
    sessions::SessionPolicy,
    store::{
        CreateUser, LoginName, OpenSession, OpenSessionRequest, Store,
        settings::{Backend, DatabaseSettings},
    },
};
use mongodb::bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use uuid::Uuid;

use crate::{Outcome, database::Database};

/// Documents of one `insertMany`.
const DOCUMENTS: u32 = 2000;

/// The `n`th user's id. UUIDs that are plain numbers, which SQL can make too.
pub(crate) fn user_id(n: u32) -> UserId {
    Uuid::from_u128((1 << 64) | u128::from(n)).into()
}

/// The `n`th user's session.
pub(crate) fn session_id(n: u32) -> SessionId {
    Uuid::from_u128(u128::from(n)).into()
}

/// The `n`th user's.
pub(crate) fn address(n: u32) -> String {
    format!("user{n:08}@example.org")
}

/// Makes `users` users, each with one open session.
pub(crate) async fn fill(
    database: &Database,
    store: &Arc<dyn Store>,
    users: u32,
    now: Timestamp,
) -> Outcome<()> {
    make_first(&**store, now).await?;
    let settings = database.settings();
    match database.backend() {
        Backend::Sqlite => copy_in_sqlite(settings, users),
        Backend::Postgres => copy_in_postgres(database, users).await,
        Backend::Mongodb => copy_in_mongodb(settings, users).await,
    }
}

async fn make_first(store: &dyn Store, now: Timestamp) -> Outcome<()> {
    let by = Occasion {
        at: now,
        agent: Agent::System,
        origin: None,
        recorder: None,
    };
    let email = EmailAddress::parse(&address(1))?;
    let user = User {
        id: user_id(1),
        email: email.clone(),
        email_verified_at: Some(now),
        username: None,
        attributes: Attributes::default(),
        roles: Roles::default(),
        status: UserStatus::Active,
        session_limit: SessionLimitOverride::default(),
        created_at: now,
        updated_at: now,
    };
    let user = NewUser {
        user,
        password_hash: None,
        provisional_until: None,
    };
    match store.create_user(&user, None, None, &by).await? {
        CreateUser::Created => {}
        other => return Err(format!("the first user was not made: {other:?}").into()),
    }
    let credentials = store.user_by_login(&LoginName::Email(email)).await?;
    let version = credentials.ok_or("no first user")?.credential_version;
    match store
        .open_session(&first_session(version, now), &by)
        .await?
    {
        OpenSession::Opened { .. } => Ok(()),
        other => Err(format!("the first session was not opened: {other:?}").into()),
    }
}

fn first_session(credential_version: i64, now: Timestamp) -> OpenSessionRequest {
    let policy = SessionPolicy::default();
    OpenSessionRequest {
        session: NewSession {
            id: session_id(1),
            user_id: user_id(1),
            expires_at: now.plus(policy.absolute_ttl),
            auth_methods: vec![AuthMethod::Password],
            device: Device {
                name: None,
                user_agent: Some(
                    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101".to_owned(),
                ),
                address: Some([127, 0, 0, 1].into()),
            },
            refresh: Some(SecretHash::of("1")),
        },
        credential_version,
        limit: policy.limit(),
        idle: IdleRule {
            idle_ttl: policy.idle_ttl,
            flush: policy.last_seen_flush,
        },
        rehash: None,
        letter: None,
    }
}

/// `INSERT … SELECT` of every column of the one row there is, but for those that differ.
fn copies(table: &str, columns: &[String], source: &str, differ: &[(&str, &str)]) -> String {
    let values: Vec<&str> = columns
        .iter()
        .map(|column| {
            let other = differ.iter().find(|(name, _)| name == column);
            other.map_or(column.as_str(), |(_, value)| value)
        })
        .collect();
    let (columns, values) = (columns.join(", "), values.join(", "));
    format!("INSERT INTO {table} ({columns}) SELECT {values} FROM {source}")
}

async fn copy_in_postgres(database: &Database, users: u32) -> Outcome<()> {
    let (client, connection) = database.postgres()?.connect(tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let session = "lpad(to_hex(n), 32, '0')::uuid";
    let user = "('0000000000000001' || lpad(to_hex(n), 16, '0'))::uuid";
    let email = "'user' || lpad(n::text, 8, '0') || '@example.org'";
    let tables: [(&str, &[(&str, &str)]); 2] = [
        (
            "users",
            &[("id", user), ("email", email), ("email_canonical", email)],
        ),
        ("sessions", &[("id", session), ("user_id", user)]),
    ];
    for (table, differ) in tables {
        let rows = client
            .query(
                "SELECT column_name::text FROM information_schema.columns WHERE table_name = $1",
                &[&table],
            )
            .await?;
        let columns: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let source = format!("{table}, generate_series(2, {users}) n");
        client
            .batch_execute(&copies(table, &columns, &source, differ))
            .await?;
        client
            .batch_execute(&format!("VACUUM ANALYZE {table}"))
            .await?;
    }
    drop(client);
    connection.await??;
    Ok(())
}

#[derive(diesel::QueryableByName)]
struct Column {
    #[diesel(sql_type = diesel::sql_types::Text)]
    name: String,
}

fn columns_in_sqlite(connection: &mut SqliteConnection, table: &str) -> Outcome<Vec<String>> {
    let columns = diesel::sql_query(format!("SELECT name FROM pragma_table_info('{table}')"));
    let columns = columns.load::<Column>(connection)?;
    Ok(columns.into_iter().map(|column| column.name).collect())
}

/// The numbers of all users but the first, as a table.
fn numbers_in_sqlite(users: u32) -> String {
    format!(
        "(WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers LIMIT {}) \
         SELECT n FROM numbers)",
        users.saturating_sub(1)
    )
}

fn copy_in_sqlite(settings: &DatabaseSettings, users: u32) -> Outcome<()> {
    let path = settings.sqlite.path.display().to_string();
    let mut connection = SqliteConnection::establish(&path)?;
    connection.batch_execute("PRAGMA busy_timeout = 60000; PRAGMA synchronous = OFF")?;
    let session = "unhex(printf('%032x', n))";
    let user = "unhex('0000000000000001' || printf('%016x', n))";
    let email = "printf('user%08d@example.org', n)";
    let tables: [(&str, &[(&str, &str)]); 2] = [
        (
            "users",
            &[("id", user), ("email", email), ("email_canonical", email)],
        ),
        ("sessions", &[("id", session), ("user_id", user)]),
    ];
    for (table, differ) in tables {
        let columns = columns_in_sqlite(&mut connection, table)?;
        let source = format!("{table}, {}", numbers_in_sqlite(users));
        if users > 1 {
            connection.batch_execute(&copies(table, &columns, &source, differ))?;
        }
    }
    connection.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

/// Makes an audit record for each user of a filled SQLite database.
pub(crate) fn copy_records(database: &Database, users: u32) -> Outcome<()> {
    let path = database.settings().sqlite.path.display().to_string();
    let mut connection = SqliteConnection::establish(&path)?;
    let columns = columns_in_sqlite(&mut connection, "audit_events")?;
    let one = "(SELECT * FROM audit_events LIMIT 1)";
    let differ = [("id", "unhex(printf('%032x', n))")];
    let source = format!("{one}, {}", numbers_in_sqlite(users));
    connection.batch_execute(&copies("audit_events", &columns, &source, &differ))?;
    Ok(())
}

/// An id as Doorward stores it.
pub(crate) fn id_bson(id: Uuid) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Uuid,
        bytes: id.as_bytes().to_vec(),
    })
}

async fn copy_in_mongodb(settings: &DatabaseSettings, users: u32) -> Outcome<()> {
    let client = mongodb::Client::with_uri_str(settings.mongodb.url.expose()).await?;
    let database = client.database(&settings.mongodb.database);
    let (people, names) = (
        database.collection::<Document>("users"),
        database.collection::<Document>("login_names"),
    );
    let first = doc! { "_id": id_bson(user_id(1).as_uuid()) };
    let first = people.find_one(first).await?.ok_or("no first user")?;
    let name = names.find_one(doc! {}).await?.ok_or("no first name")?;
    let mut next = 2;
    while next <= users {
        let last = users.min(next + DOCUMENTS - 1);
        let (mut more, mut more_names) = (Vec::new(), Vec::new());
        for n in next..=last {
            let (mut user, mut name) = (first.clone(), name.clone());
            user.insert("_id", id_bson(user_id(n).as_uuid()));
            user.insert("email", address(n));
            user.insert("email_canonical", address(n));
            let session = user
                .get_array_mut("sessions")?
                .first_mut()
                .and_then(Bson::as_document_mut);
            session
                .ok_or("no first session")?
                .insert("id", id_bson(session_id(n).as_uuid()));
            name.insert("_id", format!("email:{}", address(n)));
            name.insert("user_id", id_bson(user_id(n).as_uuid()));
            more.push(user);
            more_names.push(name);
        }
        people.insert_many(more).ordered(false).await?;
        names.insert_many(more_names).ordered(false).await?;
        next = last + 1;
    }
    client.shutdown().await;
    Ok(())
}
