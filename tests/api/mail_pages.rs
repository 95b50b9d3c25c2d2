//! The pages of letters and the mailbox of development: what browsers are given, with and without scripts.

use doorward::{
    clock::Timestamp,
    email::EmailAddress,
    entropy::SystemEntropy,
    http::ApiOptions,
    ids::LetterId,
    letters::Page,
    mail::{Mail, Mailer, Sender, memory::MemoryMailer},
};
use reqwest::{Method, header::ACCEPT_LANGUAGE};
use serde_json::{Value, json};

use super::{assert_refused, start, start_with};
use crate::harness::{
    app::{App, Client, PASSWORD, Reply, Setup},
    browser::form_body,
    mailbox::{Mailbox, settled},
    smtp::code,
};

const ANN: &str = "ann@example.org";
const EVIL: &str = "\"><script>alert('x')</script>{{nonce}}";

/// A node that sends letters and shows them.
async fn with_mail() -> (App, Mailbox) {
    let (mailbox, setup) = Mailbox::in_memory(Setup::default());
    let api = ApiOptions {
        mailbox: Some(kept(&mailbox).clone()),
        ..ApiOptions::default()
    };
    (start_with(Setup { api, ..setup }).await, mailbox)
}

/// What keeps the letters.
fn kept(mailbox: &Mailbox) -> &MemoryMailer {
    match mailbox {
        Mailbox::Memory(mailer) => mailer,
        Mailbox::Server(_) => panic!("the letters stay in the process"),
    }
}

fn newest_to(mailbox: &Mailbox, address: &str) -> Mail {
    let mut letters = kept(mailbox).letters().into_iter();
    let found = letters.find(|mail| mail.to.as_str() == address);
    found.expect("a letter")
}

async fn ask(client: &Client, method: Method, path: &str, language: &str) -> Reply {
    let request = client.http.request(method, format!("{}{path}", client.url));
    let request = request.header(ACCEPT_LANGUAGE, language);
    Reply::of(request.send().await.expect("an answer")).await
}

async fn fill_in(client: &Client, path: &str, fields: &[(&str, &str)]) -> Reply {
    let request = client.http.post(format!("{}{path}", client.url));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let request = request.body(form_body(fields));
    Reply::of(request.send().await.expect("an answer")).await
}

/// That a page runs and loads nothing but what stands in it, under a nonce of its own (ASVS 3.4.3).
#[track_caller]
fn nonce_of(what: &str, reply: &Reply) -> String {
    let policy = reply.header("content-security-policy").expect("a policy");
    for directive in [
        "default-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(directive), "{what}: {policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains('*'),
        "{policy}"
    );
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
    assert_eq!(
        reply.header("referrer-policy"),
        Some("no-referrer"),
        "{what}"
    );
    assert_eq!(reply.header("set-cookie"), None, "{what}");
    let (_, rest) = policy.split_once("style-src 'nonce-").expect("a nonce");
    rest.split('\'').next().expect("a nonce").to_owned()
}

/// ASVS 3.4.3, 3.4.5, 3.4.6, 14.2.3.
#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_whole_in_itself() {
    let (app, _mailbox) = with_mail().await;
    let guest = app.anonymous();
    for page in Page::ALL {
        let path = page.path();
        let english = ask(&guest, Method::GET, path, "fr").await;
        assert_eq!(english.status, 200, "{path}");
        assert_eq!(
            english.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(english.header("vary"), Some("Accept-Language"), "{path}");
        let nonce = nonce_of(path, &english);
        assert!(english.text.contains(&format!("<style nonce=\"{nonce}\">")));
        for foreign in [" src=", "<link", "@import", "url("] {
            assert!(!english.text.contains(foreign), "{path}: {foreign}");
        }
        assert!(english.text.contains("<html lang=\"en\""), "{path}");
        let german = ask(&guest, Method::GET, path, "de-AT,en;q=0.5").await;
        assert!(german.text.contains("<html lang=\"de\""), "{path}");
        assert_ne!(nonce_of(path, &german), nonce, "{path}");

        let head = ask(&guest, Method::HEAD, path, "en").await;
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
        nonce_of(path, &head);
        let allow = if page.takes_form() {
            "GET, POST, HEAD"
        } else {
            "GET, HEAD"
        };
        let refused = guest.delete(path).await;
        assert_refused(path, &refused, 405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some(allow), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_taken_without_scripts() {
    let (app, mailbox) = with_mail().await;
    let guest = app.anonymous();
    app.register(ANN).await;
    let code = mailbox.newest(&app, ANN).await.code();
    let other = if code == "000000" { "000001" } else { "000000" };
    let wrong = fill_in(&guest, "/verify-email", &[("email", ANN), ("code", other)]).await;
    assert_eq!(wrong.status, 400, "{}", wrong.text);
    assert!(wrong.text.contains("role=\"alert\">The code is wrong"));
    assert!(wrong.text.contains(&format!("value=\"{ANN}\"")));
    nonce_of("refused", &wrong);

    let spaced = format!(" {} {} ", &code[..3], &code[3..]);
    let done = fill_in(
        &guest,
        "/verify-email",
        &[("email", ANN), ("code", &spaced)],
    )
    .await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(done.text.contains("Your address is confirmed."));
    assert!(!done.text.contains("<form") && !done.text.contains("<script"));

    let incomplete = fill_in(&guest, "/verify-email", &[("code", &code)]).await;
    assert_refused("no address", &incomplete, 400, "malformed_form");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_breaks_a_rule_leaves_the_code_unspent() {
    let (app, mailbox) = with_mail().await;
    let guest = app.anonymous();
    app.register(ANN).await;
    settled(&app).await;
    let forgot = fill_in(&guest, "/forgot-password", &[("email", ANN)]).await;
    assert_eq!(forgot.status, 200, "{}", forgot.text);
    let code = mailbox.newest(&app, ANN).await.code();
    let fields = |password: &'static str| {
        let (email, code) = (("email", ANN), ("code", code.as_str()));
        [email, code, ("password", password)]
    };
    let short = fill_in(&guest, "/reset-password", &fields("brief")).await;
    assert_eq!(short.status, 422, "{}", short.text);
    let said = "role=\"alert\">The password must be at least 8 characters long";
    assert!(short.text.contains(said), "{}", short.text);
    assert!(!short.text.contains("brief"), "it is not repeated");
    for (password, said) in [
        ("PasswordPassword", "one of those that are tried first"),
        (
            "ann.example.org",
            "made of your name, your address or our name",
        ),
        ("abcabcabcabc", "repeats a few characters"),
    ] {
        let refused = fill_in(&guest, "/reset-password", &fields(password)).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        assert!(refused.text.contains(said), "{}", refused.text);
    }
    let set = fill_in(&guest, "/reset-password", &fields("another horse entirely")).await;
    assert_eq!(set.status, 200, "{}", set.text);
    let login = guest.try_log_in(ANN, "another horse entirely").await;
    login.expect(200);
}

/// ASVS 1.2.1, 1.2.3.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_typed_becomes_markup() {
    let (app, _mailbox) = with_mail().await;
    let guest = app.anonymous();
    let pages = Page::ALL.into_iter().filter(|page| page.takes_form());
    for page in pages {
        let fields = [("email", EVIL), ("code", EVIL), ("password", EVIL)];
        let reply = fill_in(&guest, page.path(), &fields).await;
        assert!([400, 422].contains(&reply.status), "{}", reply.text);
        assert!(!reply.text.contains("\"><script"), "{}", reply.text);
        assert!(reply.text.contains("&lt;script&gt;"), "{}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_answered_alike_for_everybody() {
    let (app, mailbox) = with_mail().await;
    let guest = app.anonymous();
    app.register(ANN).await;
    let before = mailbox.letters(&app).await.len();
    let page = guest.get("/forgot-password").await;
    assert!(page.text.contains("name=\"email\""), "{}", page.text);
    assert!(!page.text.contains("<script") && !page.text.contains("name=\"code\""));
    let mut answers = Vec::new();
    for address in [ANN, "bob@example.org"] {
        let reply = fill_in(&guest, "/forgot-password", &[("email", address)]).await;
        let nonce = nonce_of(address, &reply);
        assert!(!reply.text.contains(address), "{}", reply.text);
        answers.push((reply.status, reply.text.replace(&nonce, "")));
    }
    assert_eq!(answers[0], answers[1]);
    let (status, text) = &answers[0];
    assert_eq!(*status, 200);
    assert!(text.contains("If this address has an account"), "{text}");
    assert!(text.contains("href=\"reset-password\""), "{text}");
    assert_eq!(mailbox.letters(&app).await.len(), before + 1);
    let odd = fill_in(&guest, "/forgot-password", &[("email", "ann")]).await;
    assert_eq!(odd.status, 422);
    assert!(odd.text.contains("This is not a valid e-mail address."));

    let login = guest.get("/login").await;
    assert!(
        login.text.contains("href=\"forgot-password\""),
        "{}",
        login.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_mail_the_page_says_so() {
    let app = start().await;
    let guest = app.anonymous();
    let page = ask(&guest, Method::GET, "/forgot-password", "de").await;
    assert_eq!(page.status, 200);
    assert!(
        page.text
            .contains("Dieser Dienst verschickt keine E-Mails.")
    );
    assert!(!page.text.contains("<form") && !page.text.contains("href="));
    let sent = fill_in(&guest, "/forgot-password", &[("email", ANN)]).await;
    assert_eq!(sent.status, 409);
    assert!(sent.text.contains("This service sends no e-mails."));
    let login = guest.get("/login").await;
    assert!(!login.text.contains("forgot"), "{}", login.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_and_shown() {
    let (app, mailbox) = with_mail().await;
    let guest = app.anonymous();
    let none = guest.get("/dev/mail").await;
    assert!(none.text.contains("There are none."), "{}", none.text);
    for address in ["ann@example.org", "bob@example.org"] {
        app.register(address).await;
        settled(&app).await;
    }
    let list = guest.get("/dev/mail").await;
    assert_eq!(list.status, 200);
    nonce_of("the list", &list);
    let at = |address| list.text.find(address).expect("listed");
    assert!(
        at("bob@example.org") < at("ann@example.org"),
        "newest first"
    );

    let mail = newest_to(&mailbox, ANN);
    let path = format!("/dev/mail/{}", mail.id);
    assert!(list.text.contains(&format!("href=\"mail/{}\"", mail.id)));
    let letter = guest.get(&path).await;
    assert_eq!(letter.status, 200);
    nonce_of("a letter", &letter);
    assert!(!letter.text.contains("<script"));
    for part in [
        mail.subject.as_str(),
        ANN,
        code(&mail.text).expect("a code"),
    ] {
        assert!(letter.text.contains(part), "{part}");
    }
    let frame = format!("<iframe src=\"{}/html\"", mail.id);
    assert!(letter.text.contains(&frame), "{}", letter.text);

    let html = guest.get(&format!("{path}/html")).await;
    let base = "<head><base target=\"_blank\">";
    assert_eq!(html.text, mail.html.replacen("<head>", base, 1));
    assert!(html.text.contains(base));
    let policy = html.header("content-security-policy").expect("a policy");
    for directive in [
        "default-src 'none'",
        "frame-ancestors 'self'",
        "sandbox allow-popups",
    ] {
        assert!(policy.contains(directive), "{policy}");
    }
    for absent in ["script", "allow-same-origin", "allow-forms", "allow-top"] {
        assert!(!policy.contains(absent), "{policy}");
    }
    let welcome = guest.get("/").await.expect(200);
    assert_eq!(welcome["mailbox"], "/dev/mail");
}

/// ASVS 1.2.1. Our own letters escape what people write; another mailer's need not.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_cannot_break_out() {
    let (app, mailbox) = with_mail().await;
    let guest = app.anonymous();
    let address = EmailAddress::parse(ANN).expect("an address");
    let id = LetterId::fresh(Timestamp::EPOCH, &SystemEntropy);
    let mail = Mail {
        id,
        from: Sender {
            name: EVIL.to_owned(),
            address: address.clone(),
        },
        to: address,
        subject: EVIL.to_owned(),
        text: EVIL.to_owned(),
        html: EVIL.to_owned(),
        language: EVIL.to_owned(),
        date: Timestamp::EPOCH,
    };
    kept(&mailbox).send(&mail).await.expect("kept");
    for path in ["/dev/mail".to_owned(), format!("/dev/mail/{id}")] {
        let page = guest.get(&path).await;
        assert!(page.text.contains("&lt;script&gt;"), "{}", page.text);
        assert!(!page.text.contains("<script") && !page.text.contains("{{"));
    }
}

/// ASVS 13.4.2.
#[tokio::test(flavor = "multi_thread")]
async fn letters_are_shown_only_where_they_are_kept() {
    let (app, mailbox) = with_mail().await;
    app.register(ANN).await;
    settled(&app).await;
    let id = newest_to(&mailbox, ANN).id;
    let (shown, hidden) = (app.anonymous(), start().await);
    let hidden = hidden.anonymous();
    for path in [
        "/dev/mail",
        &format!("/dev/mail/{id}"),
        &format!("/dev/mail/{id}/html"),
    ] {
        assert_refused(path, &hidden.get(path).await, 404, "not_found");
        let refused = shown.post(path, json!({})).await;
        assert_refused(path, &refused, 405, "method_not_allowed");
        assert_eq!(refused.header("allow"), Some("GET, HEAD"), "{path}");
    }
    for path in [
        "/dev",
        "/dev/mail/x",
        "/dev/mail/01a1fd08-c4b9-7c5d-8c09-c269bf8dc48f",
    ] {
        assert_refused(path, &shown.get(path).await, 404, "not_found");
    }
    let welcome = hidden.get("/").await.expect(200);
    assert!(welcome.get("mailbox").is_none(), "{welcome}");
    let document = doorward::http::openapi_document("http://localhost");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let mut paths = document["paths"].as_object().expect("paths").keys();
    assert!(!paths.any(|path| path.starts_with("/dev")));
    assert_eq!(app.log_in(ANN).await.me().await.status, 200, "{PASSWORD}");
}
