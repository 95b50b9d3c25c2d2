//! Roles that administrators make: stored, read by name, and never the end of the last administrator.

use std::sync::Arc;

use doorward::{
    clock::{Span, Timestamp},
    ids::UserId,
    model::{
        role::{FixedRoles, Permissions, RoleDefinition, StoredRole},
        session::CloseReason,
        user::{NewUser, Roles},
    },
    store::{ChangeStanding, DeleteRole, PutRole, Store, StoreError},
};

use super::sample::{
    NOW, add, add_user, at, built_in, fresh_session_id, fresh_user_id, new_admin, new_user,
    open_one, roles, two_nodes, user,
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds},
};

for_each_store! {
    roles_are_stored_replaced_and_deleted,
    roles_are_found_by_name,
    a_time_of_change_never_goes_back,
    a_corrupt_role_is_named,
    a_corrupt_role_grants_nothing_and_holds_nobody_up,
    a_stored_role_makes_administrators,
    the_last_administrators_role_can_neither_shrink_nor_go,
    another_role_that_grants_may_take_its_place,
    a_fixed_role_hides_the_stored_one,
    a_configured_role_makes_administrators,
    without_any_administrator_roles_come_and_go,
    two_administrators_by_stored_roles_demoting_each_other_leave_one,
    demoting_races_with_deleting_the_others_role,
    deactivating_races_with_replacing_the_others_role,
    the_owner_of_a_session_is_told,
}

fn role(name: &str, permissions: &[&str]) -> RoleDefinition {
    RoleDefinition {
        name: name.to_owned(),
        permissions: Permissions::parse(permissions.iter().copied()).expect("valid"),
    }
}

async fn give(store: &dyn Store, id: UserId, held: Roles) -> ChangeStanding {
    let changed = store.set_roles(id, &held, &built_in(), &by(at(2))).await;
    changed.expect("an answer")
}

/// A role whose holders are administrators.
fn chief() -> RoleDefinition {
    role("chief", &["roles:grant", "users:read"])
}

fn holder(email: &str, held: Roles) -> NewUser {
    let mut new = new_user(email);
    new.user.roles = held;
    new
}

async fn try_put(store: &dyn Store, role: &RoleDefinition) -> PutRole {
    let put = store.put_role(role, &built_in(), &by(at(1))).await;
    put.expect("an answer")
}

async fn put(store: &dyn Store, role: &RoleDefinition) {
    let stored = StoredRole {
        role: role.clone(),
        updated_at: at(1),
    };
    assert_eq!(try_put(store, role).await, PutRole::Stored(stored));
}

async fn delete(store: &dyn Store, name: &str) -> DeleteRole {
    let deleted = store.delete_role(name, &built_in(), &by(NOW)).await;
    deleted.expect("an answer")
}

async fn demote(store: &dyn Store, id: UserId) -> ChangeStanding {
    give(store, id, Roles::default()).await
}

async fn deactivate(store: &dyn Store, id: UserId) -> ChangeStanding {
    let deactivated = store
        .deactivate_user(id, None, &built_in(), &by(at(2)))
        .await;
    deactivated.expect("an answer")
}

#[track_caller]
fn assert_changed(outcome: &ChangeStanding) {
    assert!(matches!(outcome, ChangeStanding::Changed(_)), "{outcome:?}");
}

async fn names(store: &dyn Store) -> Vec<String> {
    let all = store.list_roles().await.expect("an answer");
    all.into_iter().map(|stored| stored.role.name).collect()
}

async fn roles_are_stored_replaced_and_deleted(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    assert_eq!(names(&*other_node).await, Vec::<String>::new());
    let support = role("support", &["users:read", "billing:write"]);
    put(&*store, &support).await;
    put(&*store, &role("help-desk_2", &[])).await;
    assert_eq!(names(&*other_node).await, ["help-desk_2", "support"]);
    let smaller = role("support", &["users:read"]);
    put(&*store, &smaller).await;
    let all = other_node.list_roles().await.expect("an answer");
    assert_eq!(all[1].role, smaller, "replaced whole");
    assert_eq!(delete(&*store, "support").await, DeleteRole::Deleted);
    assert_eq!(delete(&*store, "support").await, DeleteRole::Unknown);
    assert_eq!(names(&*other_node).await, ["help-desk_2"]);
}

async fn roles_are_found_by_name(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    for name in ["a", "b", "c"] {
        put(&*store, &role(name, &["users:read"])).await;
    }
    let named = async |wanted: &[&str]| {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let found = other_node.roles_named(&wanted).await.expect("an answer");
        let mut found: Vec<String> = found.into_iter().map(|role| role.name).collect();
        found.sort();
        found
    };
    assert_eq!(named(&["a", "c", "nobody's"]).await, ["a", "c"]);
    assert_eq!(named(&["$ne", "A", "%"]).await, Vec::<String>::new());
    assert_eq!(named(&[]).await, Vec::<String>::new());
}

async fn a_time_of_change_never_goes_back(database: Database) {
    let store = database.open().await;
    let put_at = async |now: Timestamp| {
        let put = store.put_role(&chief(), &built_in(), &by(now)).await;
        match put.expect("an answer") {
            PutRole::Stored(stored) => stored.updated_at,
            PutRole::LastAdmin => panic!("nobody is an administrator"),
        }
    };
    assert_eq!(put_at(NOW).await, NOW);
    assert_eq!(put_at(NOW.minus(Span::days(1))).await, NOW);
    assert_eq!(put_at(at(5)).await, at(5));
}

async fn a_corrupt_role_is_named(database: Database) {
    let store = database.open().await;
    put(&*store, &chief()).await;
    database.corrupt_role_row("chief").await;
    let found = store.roles_named(&["chief".to_owned()]).await;
    match found {
        Err(StoreError::Corrupt { table, column, row }) => {
            assert_eq!(
                (table, column, row.as_str()),
                ("roles", "permissions", "chief")
            );
        }
        other => panic!("{other:?}"),
    }
}

async fn a_corrupt_role_grants_nothing_and_holds_nobody_up(database: Database) {
    let store = database.open().await;
    put(&*store, &chief()).await;
    let root = add(&*store, &new_admin("root@example.org")).await;
    let ann = add(&*store, &holder("ann@example.org", roles(["chief"]))).await;
    let ben = add(&*store, &holder("ben@example.org", roles(["writer"]))).await;
    database.corrupt_role_row("chief").await;
    assert_eq!(demote(&*store, root).await, ChangeStanding::LastAdmin);
    assert_changed(&deactivate(&*store, ben).await);
    put(&*store, &chief()).await;
    assert_changed(&demote(&*store, root).await);
    assert_eq!(deactivate(&*store, ann).await, ChangeStanding::LastAdmin);
}

/// ASVS 8.3.1.
async fn a_stored_role_makes_administrators(database: Database) {
    let store = database.open().await;
    let root = add(&*store, &new_admin("root@example.org")).await;
    let ann = add(
        &*store,
        &holder("ann@example.org", roles(["chief", "writer"])),
    )
    .await;
    assert_eq!(
        demote(&*store, root).await,
        ChangeStanding::LastAdmin,
        "nobody made that role yet"
    );
    put(&*store, &role("chief", &["users:read"])).await;
    assert_eq!(
        deactivate(&*store, root).await,
        ChangeStanding::LastAdmin,
        "it does not grant"
    );
    put(&*store, &chief()).await;
    assert_changed(&demote(&*store, root).await);
    for refused in [demote(&*store, ann).await, deactivate(&*store, ann).await] {
        assert_eq!(refused, ChangeStanding::LastAdmin);
    }
    // Other roles may come and go.
    assert_changed(&give(&*store, ann, roles(["chief"])).await);
    assert_changed(&give(&*store, ann, Roles::admin()).await);
    assert_eq!(delete(&*store, "chief").await, DeleteRole::Deleted);
}

async fn the_last_administrators_role_can_neither_shrink_nor_go(database: Database) {
    let store = database.open().await;
    put(&*store, &chief()).await;
    let ann = add(&*store, &holder("ann@example.org", roles(["chief"]))).await;
    let away = add(&*store, &new_admin("away@example.org")).await;
    assert_changed(&deactivate(&*store, away).await);
    let smaller = role("chief", &["users:read"]);
    assert_eq!(try_put(&*store, &smaller).await, PutRole::LastAdmin);
    assert_eq!(delete(&*store, "chief").await, DeleteRole::LastAdmin);
    let kept = store.roles_named(&["chief".to_owned()]).await;
    assert_eq!(kept.expect("an answer"), [chief()]);
    // It may grow, and any other role may go.
    put(&*store, &role("chief", &["roles:grant", "billing:write"])).await;
    put(&*store, &role("clerk", &["users:read"])).await;
    assert_eq!(delete(&*store, "clerk").await, DeleteRole::Deleted);
    store
        .activate_user(away, &by(at(3)))
        .await
        .expect("an answer");
    put(&*store, &smaller).await;
    assert_changed(&demote(&*store, ann).await);
}

async fn another_role_that_grants_may_take_its_place(database: Database) {
    let store = database.open().await;
    put(&*store, &chief()).await;
    put(&*store, &role("owner", &["roles:grant"])).await;
    add(
        &*store,
        &holder("ann@example.org", roles(["chief", "owner"])),
    )
    .await;
    assert_eq!(delete(&*store, "chief").await, DeleteRole::Deleted);
    assert_eq!(delete(&*store, "owner").await, DeleteRole::LastAdmin);
}

async fn a_fixed_role_hides_the_stored_one(database: Database) {
    let store = database.open().await;
    put(&*store, &chief()).await;
    let ann = add(&*store, &holder("ann@example.org", roles(["chief"]))).await;
    let root = add(&*store, &new_admin("root@example.org")).await;
    let fixed = FixedRoles::with([role("chief", &["users:read"])]);
    let nobody = Roles::default();
    let refused = store.set_roles(root, &nobody, &fixed, &by(at(2))).await;
    assert_eq!(refused.expect("an answer"), ChangeStanding::LastAdmin);
    let demoted = store.set_roles(ann, &nobody, &fixed, &by(at(2))).await;
    assert_changed(&demoted.expect("an answer"));
    let deleted = store.delete_role("chief", &fixed, &by(NOW)).await;
    assert_eq!(deleted.expect("an answer"), DeleteRole::Deleted);
}

async fn a_configured_role_makes_administrators(database: Database) {
    let store = database.open().await;
    let fixed = FixedRoles::with([role("owner", &["roles:grant"])]);
    let ann = add(&*store, &holder("ann@example.org", roles(["owner"]))).await;
    let root = add(&*store, &new_admin("root@example.org")).await;
    let nobody = Roles::default();
    let demoted = store.set_roles(root, &nobody, &fixed, &by(at(2))).await;
    assert_changed(&demoted.expect("an answer"));
    let refused = store.deactivate_user(ann, None, &fixed, &by(at(2))).await;
    assert_eq!(refused.expect("an answer"), ChangeStanding::LastAdmin);
    let instead = store
        .set_roles(ann, &Roles::admin(), &fixed, &by(at(2)))
        .await;
    assert_changed(&instead.expect("an answer"));
}

async fn without_any_administrator_roles_come_and_go(database: Database) {
    let store = database.open().await;
    put(&*store, &chief()).await;
    let ann = add(&*store, &holder("ann@example.org", roles(["chief"]))).await;
    add(&*store, &new_admin("root@example.org")).await;
    assert_changed(&deactivate(&*store, ann).await);
    put(&*store, &role("chief", &[])).await;
    put(&*store, &chief()).await;
    assert_eq!(delete(&*store, "chief").await, DeleteRole::Deleted);
    let nobody = fresh_user_id();
    assert_eq!(demote(&*store, nobody).await, ChangeStanding::Gone);
}

/// Two nodes, and two administrators each by a role of their own: `one` and `two`.
async fn rivals(database: &Database) -> ([Arc<dyn Store>; 2], [UserId; 2]) {
    let nodes = two_nodes(database).await;
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        put(&*nodes[0], &role(name, &["roles:grant"])).await;
        let new = holder(&format!("{name}@example.org"), roles([name]));
        ids.push(add(&*nodes[0], &new).await);
    }
    (nodes, [ids[0], ids[1]])
}

/// How many active users hold a role that grants, and both made administrators again.
async fn count_and_restore(store: &dyn Store, ids: [UserId; 2]) -> usize {
    let mut active = 0;
    let stored = store.list_roles().await.expect("an answer");
    let stored: Vec<RoleDefinition> = stored.into_iter().map(|stored| stored.role).collect();
    let admins = built_in().administrators(&stored);
    for (id, name) in ids.into_iter().zip(["one", "two"]) {
        let found = user(store, id).await;
        active += usize::from(found.is_active() && admins.is_among(&found.roles));
        put(store, &role(name, &["roles:grant"])).await;
        store.activate_user(id, &by(NOW)).await.expect("an answer");
        assert_changed(&give(store, id, roles([name])).await);
    }
    active
}

/// ASVS 2.3.4.
async fn two_administrators_by_stored_roles_demoting_each_other_leave_one(database: Database) {
    let (nodes, ids) = rivals(&database).await;
    for round in 0..rounds(100) {
        let racers = (0..2).map(|n| {
            let (store, other) = (Arc::clone(&nodes[n]), ids[1 - n]);
            async move { demote(&*store, other).await == ChangeStanding::LastAdmin }
        });
        let refused = race(racers).await;
        let left = count_and_restore(&*nodes[0], ids).await;
        assert_eq!(
            (refused.iter().filter(|no| **no).count(), left),
            (1, 1),
            "round {round}"
        );
    }
}

/// ASVS 2.3.4.
async fn demoting_races_with_deleting_the_others_role(database: Database) {
    let (nodes, ids) = rivals(&database).await;
    for round in 0..rounds(100) {
        let racers = (0..2).map(|n| {
            let store = Arc::clone(&nodes[n]);
            async move {
                if n == 0 {
                    demote(&*store, ids[0]).await == ChangeStanding::LastAdmin
                } else {
                    delete(&*store, "two").await == DeleteRole::LastAdmin
                }
            }
        });
        let refused = race(racers).await;
        let left = count_and_restore(&*nodes[0], ids).await;
        assert_eq!(
            (refused.iter().filter(|no| **no).count(), left),
            (1, 1),
            "round {round}"
        );
    }
}

/// ASVS 2.3.4.
async fn deactivating_races_with_replacing_the_others_role(database: Database) {
    let (nodes, ids) = rivals(&database).await;
    for round in 0..rounds(100) {
        let racers = (0..2).map(|n| {
            let store = Arc::clone(&nodes[n]);
            async move {
                if n == 0 {
                    deactivate(&*store, ids[0]).await == ChangeStanding::LastAdmin
                } else {
                    try_put(&*store, &role("two", &["users:read"])).await == PutRole::LastAdmin
                }
            }
        });
        let refused = race(racers).await;
        let left = count_and_restore(&*nodes[0], ids).await;
        assert_eq!(
            (refused.iter().filter(|no| **no).count(), left),
            (1, 1),
            "round {round}"
        );
    }
}

async fn the_owner_of_a_session_is_told(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let owner = async |session| {
        let owner = other_node.owner_of_session(session).await;
        owner.expect("an answer")
    };
    assert_eq!(owner(session).await, Some(ann));
    let by = by(at(1));
    let closed = store.close_sessions(ann, None, CloseReason::Revoked, &by);
    closed.await.expect("an answer");
    assert_eq!(owner(session).await, Some(ann), "closed ones too");
    assert_eq!(owner(fresh_session_id()).await, None);
}
