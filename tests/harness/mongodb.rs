//! MongoDB by hand: clients past Doorward's code, and the replica set without a shell.

use mongodb::{
    Client,
    bson::{Document, RawDocumentBuf, doc},
    options::ClientOptions,
};
use tokio::sync::OnceCell;

/// MongoDB's code for a replica set that is initiated already.
const ALREADY_INITIALIZED: i32 = 23;

/// A client of its own runtime; tests do not share one.
pub async fn client(url: &str) -> Client {
    let options = ClientOptions::parse(url)
        .await
        .unwrap_or_else(|e| panic!("DOORWARD_TEST_MONGODB_URL cannot be understood: {e}"));
    Client::with_options(options).expect("a client")
}

pub async fn drop_database(url: &str, name: &str) {
    let client = client(url).await;
    client
        .database(name)
        .drop()
        .await
        .unwrap_or_else(|e| panic!("{name} could not be dropped: {e}"));
    client.shutdown().await;
}

/// Makes a fresh server a replica set of one, once per process.
pub async fn ensure_replica_set(url: &str) {
    static READY: OnceCell<()> = OnceCell::const_new();
    READY.get_or_init(|| initiate(url)).await;
}

/// Initiates the replica set of the server that the URL names first, unless it is initiated, and waits
/// until it takes writes.
pub async fn initiate(url: &str) {
    let mut options = ClientOptions::parse(url)
        .await
        .unwrap_or_else(|e| panic!("DOORWARD_TEST_MONGODB_URL cannot be understood: {e}"));
    let set = options.repl_set_name.take();
    options.hosts.truncate(1);
    options.direct_connection = Some(true);
    let host = options.hosts[0].to_string();
    let client = Client::with_options(options).expect("a client");
    let admin = client.database("admin");
    let is_primary = |hello: &Document| hello.get_bool("isWritablePrimary").unwrap_or(false);
    let hello = admin
        .run_command(doc! {"hello": 1})
        .await
        .unwrap_or_else(|e| panic!("MongoDB does not answer, run ./tests/run: {e}"));
    if !is_primary(&hello) && hello.get_str("setName").is_err() {
        let member = doc! {"_id": 0, "host": host};
        let config = doc! {"_id": set.unwrap_or_else(|| "rs0".to_owned()), "members": [member]};
        let initiated = admin.run_command(doc! {"replSetInitiate": config}).await;
        if let Err(error) = initiated {
            let code = match &*error.kind {
                mongodb::error::ErrorKind::Command(command) => command.code,
                _ => 0,
            };
            assert_eq!(
                code, ALREADY_INITIALIZED,
                "start mongod with --replSet: {error}"
            );
        }
    }
    super::until("the replica set has a primary", || async {
        let hello = admin.run_command(doc! {"hello": 1}).await;
        hello.is_ok_and(|hello| is_primary(&hello))
    })
    .await;
    client.shutdown().await;
}

/// Every document of every collection, as it is stored.
pub async fn dump(database: &mongodb::Database) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in database.list_collection_names().await.expect("names") {
        let collection = database.collection::<RawDocumentBuf>(&name);
        let mut cursor = collection.find(doc! {}).await.expect("a cursor");
        while cursor.advance().await.expect("a document") {
            bytes.extend_from_slice(cursor.current().as_bytes());
        }
    }
    bytes
}
