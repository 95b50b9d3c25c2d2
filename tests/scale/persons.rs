//! Persons who log in, refresh, log out and are thrown out, at whichever node.
//!
//! Each does one thing after the other, asks again until there is an answer, and shows a session to every node as soon
//! as its end is acknowledged. What a person was told is written down: `settling` asks for it at the end.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use futures_util::future::join_all;

use crate::{
    Outcome,
    http::request,
    world::{Login, Ways, World},
};

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// Somebody with an account and a session.
pub(crate) struct Person {
    pub(crate) email: String,
    /// Their place in the world.
    number: usize,
    id: String,
    pub(crate) login: Arc<Login>,
    pub(crate) refresh: String,
}

/// One who acts for some persons in turn.
pub(crate) struct Actor {
    pub(crate) world: Arc<World>,
    pub(crate) ways: Ways,
    pub(crate) persons: Vec<Person>,
    /// The addresses of accounts that were made besides.
    pub(crate) registered: Vec<String>,
    /// Of an administrator, who throws persons out.
    pub(crate) token: String,
    name: usize,
}

impl Actor {
    pub(crate) fn new(world: &Arc<World>, name: usize, token: &str) -> Self {
        let seed = u64::try_from(name).unwrap_or_default();
        Self {
            ways: Ways::to(&world.nodes, seed),
            world: Arc::clone(world),
            persons: Vec::new(),
            registered: Vec::new(),
            token: token.to_owned(),
            name,
        }
    }

    /// Makes an account with a session.
    pub(crate) async fn welcome(&mut self, number: usize) -> Outcome<()> {
        let email = format!("person{number}@example.org");
        self.register(&email).await?;
        let ((login, refresh), id) = self.log_in(&email, number).await?;
        self.persons.push(Person {
            email,
            number,
            id,
            login,
            refresh,
        });
        Ok(())
    }

    /// Acts until the world stops.
    pub(crate) async fn act(mut self) -> Outcome<Self> {
        while self.world.goes_on() {
            let one = self.ways.random.below(self.persons.len());
            match self.ways.random.below(20) {
                0..6 => self.replace(one).await?,
                6..11 => self.log_out(one).await?,
                11..14 => self.throw_out(one).await?,
                14..19 => self.refresh(one).await?,
                _ => {
                    let n = self.registered.len();
                    let email = format!("new{}x{n}@example.org", self.name);
                    if self.register(&email).await? {
                        self.registered.push(email);
                    }
                }
            }
        }
        Ok(self)
    }

    /// Whether an account was acknowledged. It was not where an attempt in doubt is followed by "taken": that may be
    /// what a primary says that was deposed and does not know it.
    async fn register(&mut self, email: &str) -> Outcome<bool> {
        let body = format!(r#"{{"email":"{email}","password":"{PASSWORD}"}}"#);
        let asked = request("POST", "/v1/auth/register", None, &body);
        let (status, way, in_doubt) = self.world.ask(&mut self.ways, &asked).await?;
        if status != 201 && !(in_doubt && status == 409) {
            return Err(format!("registering: {status}: {}", way.body()).into());
        }
        let acknowledged = status == 201;
        let count = u64::from(acknowledged);
        self.world.tally.acknowledged.fetch_add(count, Relaxed);
        Ok(acknowledged)
    }

    /// A new session with its refresh token, and the id of its user's account.
    async fn log_in(
        &mut self,
        email: &str,
        number: usize,
    ) -> Outcome<((Arc<Login>, String), String)> {
        let body = format!(r#"{{"email":"{email}","password":"{PASSWORD}"}}"#);
        let asked = request("POST", "/v1/auth/login", None, &body);
        let (status, way, _) = self.world.ask(&mut self.ways, &asked).await?;
        let tokens = (way.field("access_token"), way.field("refresh_token"));
        let (200, (Some(access), Some(refresh))) = (status, tokens) else {
            return Err(format!("logging in: {status}: {}", way.body()).into());
        };
        self.world.tally.acknowledged.fetch_add(1, Relaxed);
        let id = subject(&access).ok_or("a token without a subject")?;
        Ok(((self.world.opened(number, access), refresh), id))
    }

    /// Logs in again, which ends the session before: single login.
    async fn replace(&mut self, one: usize) -> Outcome<()> {
        let person = &self.persons[one];
        let (email, number, before) = (
            person.email.clone(),
            person.number,
            Arc::clone(&person.login),
        );
        before.history.end_is_asked(self.world.now());
        let ((login, refresh), _) = self.log_in(&email, number).await?;
        let at = self.world.now();
        let person = &mut self.persons[one];
        (person.login, person.refresh) = (login, refresh);
        self.has_ended(&before, at).await;
        Ok(())
    }

    async fn log_out(&mut self, one: usize) -> Outcome<()> {
        let token = self.persons[one].login.token.clone();
        let asked = request("POST", "/v1/auth/logout", Some(&token), "");
        self.end(one, &asked, 204).await
    }

    /// An administrator ends all of a person's sessions.
    async fn throw_out(&mut self, one: usize) -> Outcome<()> {
        let path = format!("/v1/admin/users/{}/revoke", self.persons[one].id);
        let asked = request("POST", &path, Some(&self.token), "");
        self.end(one, &asked, 200).await
    }

    async fn end(&mut self, one: usize, asked: &[u8], right: u16) -> Outcome<()> {
        let login = Arc::clone(&self.persons[one].login);
        login.history.end_is_asked(self.world.now());
        let (status, way, _) = self.world.ask(&mut self.ways, asked).await?;
        let at = self.world.now();
        if status != right {
            return Err(format!("ending a session: {status}: {}", way.body()).into());
        }
        self.world.tally.acknowledged.fetch_add(1, Relaxed);
        self.has_ended(&login, at).await;
        let person = &self.persons[one];
        let (email, number) = (person.email.clone(), person.number);
        let ((login, refresh), _) = self.log_in(&email, number).await?;
        let person = &mut self.persons[one];
        (person.login, person.refresh) = (login, refresh);
        Ok(())
    }

    /// Shows the session to all nodes at once.
    async fn has_ended(&mut self, login: &Arc<Login>, at: u64) {
        self.world.ended(login, at);
        let ways = self.ways.connections.iter_mut();
        join_all(ways.map(|way| self.world.show(way, login, true))).await;
    }

    async fn refresh(&mut self, one: usize) -> Outcome<()> {
        let body = format!(r#"{{"refresh_token":"{}"}}"#, self.persons[one].refresh);
        let asked = request("POST", "/v1/auth/refresh", None, &body);
        let (status, way, _) = self.world.ask(&mut self.ways, &asked).await?;
        let (200, Some(next)) = (status, way.field("refresh_token")) else {
            // Nobody has ended this session.
            self.world.is_lost(way.body());
            return self.replace(one).await;
        };
        self.world.tally.acknowledged.fetch_add(1, Relaxed);
        self.persons[one].refresh = next;
        Ok(())
    }
}

/// Whose token it is (RFC 7519 §4.1.2), without checking it.
fn subject(token: &str) -> Option<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims.get("sub")?.as_str().map(ToOwned::to_owned)
}
