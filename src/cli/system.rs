//! Commands about the server itself: its schema, its documents, its settings.

use serde_json::{Value, json};

use super::{Failure, MigrateArgs, Say};
use crate::{
    config::Settings,
    http, server,
    setting::BadSetting,
    store::open::{open, unusable},
};

pub(super) async fn migrate(
    settings: &Settings,
    args: &MigrateArgs,
    say: Say,
) -> Result<(), Failure> {
    let opened = open(&settings.database).await?;
    let (store, migrations) = (opened.store, opened.migrations);
    let unusable = |e| unusable(&settings.database, e);
    let answered = if args.check {
        let pending = migrations.pending().await.map_err(unusable)?;
        let said = say.text(listed("pending", &pending), json!({ "pending": pending }));
        if pending.is_empty() {
            said
        } else {
            said.and(Err(Failure(
                "the database is not up to date; run `doorward migrate`".into(),
            )))
        }
    } else if let Some(n) = args.down {
        let reverted = migrations.revert(usize::from(n)).await.map_err(unusable)?;
        say.text(
            listed("taken back", &reverted),
            json!({ "reverted": reverted }),
        )
    } else {
        let applied = migrations.apply().await.map_err(unusable)?;
        say.text(listed("applied", &applied), json!({ "applied": applied }))
    };
    store.close().await;
    answered
}

/// Removes what is over, once, unless a node is at it.
pub(super) async fn sweep(settings: &Settings, say: Say) -> Result<(), Failure> {
    settings.check()?;
    let auth = server::open_quiet_service(settings).await?;
    let swept = auth.sweeper().sweep().await;
    server::shut_down(&auth).await;
    match swept.map_err(|error| unusable(&settings.database, error))? {
        Some(swept) => say.text(swept, swept),
        None => Err(Failure("another node is sweeping at this moment".into())),
    }
}

fn listed(what: &str, names: &[String]) -> String {
    let lines = names.iter().map(|name| format!("{what} {name}"));
    match names {
        [] => format!("nothing {what}"),
        _ => lines.collect::<Vec<_>>().join("\n"),
    }
}

pub(super) fn openapi(settings: &Settings, say: Say) -> Result<(), Failure> {
    let document = http::openapi_document(&settings.public_url);
    let value: Value = serde_json::from_str(&document).unwrap_or_default();
    say.text(document, value)
}

pub(super) fn check(settings: &Settings, say: Say) -> Result<(), Failure> {
    settings.check()?;
    settings.attribute_rules()?;
    server::letters(settings)?;
    server::check_tls(settings)?;
    // In development a key file that is not there yet is made by `serve`.
    let made_later = settings.tokens.key_file.is_empty()
        && settings.key_file().is_some_and(|path| !path.exists());
    if !made_later {
        settings.key_ring().map(drop)?;
    }
    say.text("ok", json!({ "ok": true }))
}

/// The sentence for a command that needs a file which no setting names.
pub(super) fn no_key_file() -> BadSetting {
    BadSetting::new(
        "tokens.key_file",
        "is not set",
        "set it, or name a file with --file",
    )
}
