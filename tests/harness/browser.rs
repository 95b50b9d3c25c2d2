//! A browser, as far as the API can tell: it keeps the session cookie and says which site asks.

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};

use super::app::{App, Client, Node, PASSWORD, Reply, http_client};

/// A page of our own site in a browser of its own.
#[derive(Clone)]
pub struct Browser {
    http: reqwest::Client,
    pub url: String,
    /// `name=value`, as the server gave it.
    pub cookie: Option<String>,
    /// What the browser says about who asks.
    site: Vec<(&'static str, &'static str)>,
}

impl Browser {
    pub fn at(node: &Node) -> Self {
        Self::at_url(&node.url)
    }

    pub fn at_url(url: &str) -> Self {
        Self {
            http: http_client(),
            url: url.to_owned(),
            cookie: None,
            site: vec![("sec-fetch-site", "same-origin")],
        }
    }

    /// The same browser at another node.
    pub fn moved_to(&self, node: &Node) -> Self {
        Self {
            url: node.url.clone(),
            ..self.clone()
        }
    }

    /// The same browser, when another page asks or the browser says something else.
    pub fn saying(&self, site: &[(&'static str, &'static str)]) -> Self {
        Self {
            site: site.to_vec(),
            ..self.clone()
        }
    }

    /// The same browser with another cookie.
    pub fn with_cookie(&self, cookie: &str) -> Self {
        Self {
            cookie: Some(cookie.to_owned()),
            ..self.clone()
        }
    }

    /// The value of its cookie; without one the test fails.
    #[track_caller]
    pub fn value(&self) -> &str {
        let cookie = self.cookie.as_deref().expect("a cookie");
        cookie.split_once('=').expect("a name and a value").1
    }

    /// Logs in with [`PASSWORD`] and keeps the cookie.
    pub async fn log_in(&self, email: &str) -> Self {
        self.log_in_with(email, PASSWORD).await
    }

    /// Logs in and keeps the cookie.
    pub async fn log_in_with(&self, email: &str, password: &str) -> Self {
        let body = json!({"email": email, "password": password, "transport": "cookie"});
        let reply = self.post("/v1/auth/login", body).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        self.after(&reply)
    }

    pub async fn try_log_in(&self, email: &str) -> Reply {
        let body = json!({"email": email, "password": PASSWORD, "transport": "cookie"});
        self.post("/v1/auth/login", body).await
    }

    /// The browser once it has read an answer: with the cookie that is in it, or without one if the
    /// answer takes it away.
    pub fn after(&self, reply: &Reply) -> Self {
        let Some(set) = set_cookie(&reply.headers) else {
            return self.clone();
        };
        let cookie = set.split(';').next().expect("a pair").to_owned();
        let cookie = (!set.contains("Max-Age=0")).then_some(cookie);
        Self {
            cookie,
            ..self.clone()
        }
    }

    pub async fn me(&self) -> Reply {
        self.get("/v1/auth/me").await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(Method::POST, path).json(&body))
            .await
    }

    /// POST without a body.
    pub async fn call(&self, path: &str) -> Reply {
        self.send(self.request(Method::POST, path)).await
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        for (name, value) in &self.site {
            request = request.header(*name, *value);
        }
        request
    }

    pub async fn send(&self, request: RequestBuilder) -> Reply {
        Reply::of(request.send().await.expect("an answer")).await
    }

    /// A client that sends what the cookie holds as an access token.
    pub fn as_bearer(&self) -> Client {
        Client::anonymous(&self.url).with_token(self.value())
    }
}

/// The one `Set-Cookie` of an answer, if there is one, besides that by which a device is known again.
#[track_caller]
pub fn set_cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all("set-cookie").iter();
    let mut all = all
        .map(|set| set.to_str().expect("text"))
        .filter(|set| !set.contains("doorward_device="));
    let first = all.next()?;
    assert!(all.next().is_none(), "one cookie");
    Some(first)
}

impl App {
    /// A browser at the first node.
    pub fn browser(&self) -> Browser {
        Browser::at(&self.nodes[0])
    }

    /// The value of a fresh session cookie.
    pub async fn cookie(&self, email: &str) -> String {
        self.browser().log_in(email).await.value().to_owned()
    }
}

/// The body of a form.
pub fn form_body(fields: &[(&str, &str)]) -> String {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(fields).finish()
}
