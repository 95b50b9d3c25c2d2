//! Lists of users: newest first, page by page, filtered; a searched text is taken literally.

use doorward::{
    clock::Span,
    ids::UserId,
    model::user::Roles,
    store::{Store, UserFilter},
};

use super::sample::{
    NOW, add, add_user, at, built_in, fresh_user_id, named_user, new_user_at, roles,
};
use crate::harness::occasions::by;
use crate::{for_each_store, harness::backend::Database};

for_each_store! {
    nobody_is_an_empty_list,
    the_newest_come_first,
    pages_follow_each_other_without_gap_or_repetition,
    only_the_active_or_only_the_deactivated_are_listed,
    only_holders_of_a_role_are_listed,
    a_text_is_found_in_address_and_name_in_any_case,
    a_text_is_taken_literally,
    filters_apply_together,
    the_canary_is_not_listed,
}

fn everybody() -> UserFilter {
    UserFilter {
        limit: 100,
        ..UserFilter::default()
    }
}

async fn list(store: &dyn Store, filter: &UserFilter) -> Vec<UserId> {
    let users = store.list_users(filter).await.expect("an answer");
    users.iter().map(|user| user.id).collect()
}

async fn search(store: &dyn Store, text: &str) -> Vec<UserId> {
    list(
        store,
        &UserFilter {
            text: Some(text.to_owned()),
            ..everybody()
        },
    )
    .await
}

/// Users made a second apart, the newest first.
async fn add_some(store: &dyn Store, count: i64) -> Vec<UserId> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(add(store, &new_user_at(&format!("user{n}@example.org"), at(n))).await);
    }
    ids.reverse();
    ids
}

/// ASVS 6.3.2.
async fn nobody_is_an_empty_list(database: Database) {
    assert_eq!(list(&*database.open().await, &everybody()).await, []);
}

async fn the_newest_come_first(database: Database) {
    let store = database.open().await;
    let newest_first = add_some(&*store, 5).await;
    assert_eq!(list(&*store, &everybody()).await, newest_first);
    let users = store.list_users(&everybody()).await.expect("an answer");
    assert_eq!(users[0].email.as_str(), "user4@example.org");
}

async fn pages_follow_each_other_without_gap_or_repetition(database: Database) {
    let store = database.open().await;
    let newest_first = add_some(&*store, 7).await;
    let mut paged = Vec::new();
    let mut before = None;
    for expected in [3, 3, 1, 0] {
        let page = list(
            &*store,
            &UserFilter {
                before,
                limit: 3,
                ..everybody()
            },
        )
        .await;
        assert_eq!(page.len(), expected);
        before = page.last().copied().or(before);
        paged.extend(page);
    }
    assert_eq!(paged, newest_first);
    // A cursor need not be anybody's id any more.
    let ahead = UserId::fresh(NOW.plus(Span::days(1)), &doorward::entropy::SystemEntropy);
    assert_eq!(
        list(
            &*store,
            &UserFilter {
                before: Some(ahead),
                ..everybody()
            }
        )
        .await,
        newest_first
    );
}

async fn only_the_active_or_only_the_deactivated_are_listed(database: Database) {
    let store = database.open().await;
    let newest_first = add_some(&*store, 3).await;
    store
        .deactivate_user(newest_first[1], None, &built_in(), &by(at(9)))
        .await
        .expect("an answer");
    let active = list(
        &*store,
        &UserFilter {
            active: Some(true),
            ..everybody()
        },
    )
    .await;
    assert_eq!(active, [newest_first[0], newest_first[2]]);
    let gone = list(
        &*store,
        &UserFilter {
            active: Some(false),
            ..everybody()
        },
    )
    .await;
    assert_eq!(gone, [newest_first[1]]);
}

async fn only_holders_of_a_role_are_listed(database: Database) {
    let store = database.open().await;
    let mut ids = Vec::new();
    for (n, held) in [
        Roles::default(),
        roles(["admin"]),
        roles(["admin-2", "a_b"]),
        roles(["a-b", "admin"]),
    ]
    .into_iter()
    .enumerate()
    {
        let seconds = i64::try_from(n).expect("small");
        let mut new = new_user_at(&format!("user{n}@example.org"), at(seconds));
        new.user.roles = held;
        ids.push(add(&*store, &new).await);
    }
    for (role, expected) in [
        ("admin", vec![ids[3], ids[1]]),
        ("admin-2", vec![ids[2]]),
        ("a_b", vec![ids[2]]),
        ("a-b", vec![ids[3]]),
        ("adm", vec![]),
        ("%", vec![]),
        ("nobody", vec![]),
        ("\"", vec![]),
    ] {
        let found = list(
            &*store,
            &UserFilter {
                role: Some(role.to_owned()),
                ..everybody()
            },
        )
        .await;
        assert_eq!(found, expected, "{role}");
    }
}

async fn a_text_is_found_in_address_and_name_in_any_case(database: Database) {
    let store = database.open().await;
    let ann = add(&*store, &named_user("Ann@Example.org", "Door_Keeper")).await;
    add_user(&*store, "bob@example.net").await;
    for text in [
        "Ann@Example.org",
        "ann",
        "ANN",
        "n@ex",
        "ample.ORG",
        "Door",
        "KEEPER",
        "r_k",
    ] {
        assert_eq!(search(&*store, text).await, [ann], "{text}");
    }
    assert_eq!(search(&*store, "example").await.len(), 2);
    assert_eq!(search(&*store, "carol").await, []);
}

/// ASVS 1.2.9.
async fn a_text_is_taken_literally(database: Database) {
    let store = database.open().await;
    let percent = add_user(&*store, "a%b@example.org").await;
    let star = add_user(&*store, "a*b@example.org").await;
    let plain = add(&*store, &named_user("axxb@example.org", "under_score")).await;
    let dollar = add_user(&*store, "a$b^c|d{e}f@example.org").await;
    for (text, expected) in [
        ("%", vec![percent]),
        ("a%b", vec![percent]),
        ("_", vec![plain]),
        ("a_b", vec![]),
        ("a__b", vec![]),
        (".*", vec![]),
        ("a*b", vec![star]),
        ("a.b", vec![]),
        ("(", vec![]),
        ("[a]", vec![]),
        ("\\", vec![]),
        ("\\%", vec![]),
        ("^a", vec![]),
        ("org$", vec![]),
        ("$b^c|d{", vec![dollar]),
        ("'", vec![]),
        ("\"", vec![]),
        ("' OR 1=1 --", vec![]),
    ] {
        assert_eq!(search(&*store, text).await, expected, "{text}");
    }
    assert_eq!(
        search(&*store, "").await.len(),
        4,
        "everything contains nothing"
    );
}

async fn filters_apply_together(database: Database) {
    let store = database.open().await;
    let mut ids = Vec::new();
    for n in 0..6 {
        let mut new = new_user_at(&format!("user{n}@example.org"), at(n));
        if n % 2 == 0 {
            new.user.roles = roles(["writer"]);
        }
        ids.push(add(&*store, &new).await);
    }
    store
        .deactivate_user(ids[2], None, &built_in(), &by(at(9)))
        .await
        .expect("an answer");
    let filter = UserFilter {
        text: Some("user".to_owned()),
        active: Some(true),
        role: Some("writer".to_owned()),
        before: Some(ids[5]),
        limit: 1,
    };
    assert_eq!(list(&*store, &filter).await, [ids[4]]);
    let next = UserFilter {
        before: Some(ids[4]),
        ..filter.clone()
    };
    assert_eq!(list(&*store, &next).await, [ids[0]]);
    let nobody = UserFilter {
        before: Some(fresh_user_id()),
        text: Some("nobody".to_owned()),
        ..filter
    };
    assert_eq!(list(&*store, &nobody).await, []);
}

async fn the_canary_is_not_listed(database: Database) {
    let store = database.open().await;
    let mut canary = new_user_at("canary@doorward.invalid", at(1));
    canary.user.id = UserId::CANARY;
    add(&*store, &canary).await;
    let ann = add(&*store, &new_user_at("ann@example.org", at(2))).await;
    assert_eq!(list(&*store, &everybody()).await, [ann]);
    assert_eq!(search(&*store, "canary").await, []);
    let after = UserFilter {
        before: Some(ann),
        ..everybody()
    };
    assert_eq!(list(&*store, &after).await, []);
    let found = store.user(UserId::CANARY).await.expect("an answer");
    assert!(found.is_some(), "whoever asks by its id is answered");
}
