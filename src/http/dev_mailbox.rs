//! `/dev/mail`: the letters of a server in development, as their readers would see them.
//!
//! Decides only how they are shown. Whoever reaches these pages reads every letter with the secrets in it,
//! so they are there only where [`ApiOptions::mailbox`](super::ApiOptions::mailbox) is given, and production
//! refuses to start with one. What a letter holds never runs here: it is shown in a frame of its own, without
//! scripts and without this origin.

use poem::{
    Endpoint, IntoResponse, Request, Response, Route, get,
    http::{HeaderValue, header},
    web::Html,
};
use uuid::Uuid;

use super::{
    Context,
    page::{escaped, page_policy},
    problem::Problem,
};
use crate::{
    clock::Timestamp,
    error::AuthError,
    mail::{Mail, memory::MemoryMailer},
};

const PAGE: &str = include_str!("dev_mailbox.html");

/// Where the list stands; letters stand below it.
pub(super) const PATH: &str = "/dev/mail";
const LETTER: &str = "/dev/mail/:id";
const HTML: &str = "/dev/mail/:id/html";
/// Every path there is.
pub(super) const PATHS: [&str; 3] = [PATH, LETTER, HTML];

/// Letters bring their styles with them. Links open in a tab of their own, free of what binds the frame.
const LETTER_POLICY: &str = "default-src 'none'; object-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox";

/// Adds the pages.
pub(super) fn mount(route: Route, mailbox: &MemoryMailer) -> Route {
    let show = |part| {
        let mailbox = mailbox.clone();
        get(Show { mailbox, part })
    };
    route
        .at(PATH, show(Part::List))
        .at(LETTER, show(Part::Letter))
        .at(HTML, show(Part::Html))
}

#[derive(Clone, Copy)]
enum Part {
    List,
    Letter,
    Html,
}

struct Show {
    mailbox: MemoryMailer,
    part: Part,
}

impl Endpoint for Show {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let context = Context::of(&request)?;
        Ok(match self.part {
            Part::List => page(context, "Letters", &list(&self.mailbox.letters()))?,
            Part::Letter => {
                let mail = self.letter(&request)?;
                page(context, &mail.subject, &letter(&mail))?
            }
            Part::Html => framed(&self.letter(&request)?),
        })
    }
}

impl Show {
    fn letter(&self, request: &Request) -> poem::Result<Mail> {
        let id: Uuid = request.path_params()?;
        let found = self.mailbox.letter(id.into());
        Ok(found.ok_or_else(|| Problem::from(AuthError::NotFound("letter")))?)
    }
}

fn page(context: &Context, title: &str, body: &str) -> Result<Response, Problem> {
    let nonce = context.auth.nonce();
    // What people wrote goes in last, and its braces are escaped.
    let html = PAGE
        .replace("{nonce}", &nonce)
        .replace("{title}", &escaped(title))
        .replace("{content}", body);
    let policy = page_policy(&nonce, "frame-src 'self'; form-action 'none'")?;
    let mut response = Html(html).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

fn list(letters: &[Mail]) -> String {
    let items = letters.iter().map(|mail| {
        format!(
            "<li><a href=\"mail/{}\"><strong>{}</strong><span>{}</span><span>{}</span></a></li>\n",
            mail.id,
            escaped(&mail.subject),
            escaped(mail.to.as_str()),
            time(mail.date),
        )
    });
    let items: String = items.collect();
    let shown = if letters.is_empty() {
        "<p>There are none. They appear here as soon as one is sent.</p>".to_owned()
    } else {
        format!("<ol>\n{items}</ol>")
    };
    format!(
        "<h1>Letters</h1>\n<p>What this server would have sent, newest first. It keeps the last 200 until it stops.</p>\n{shown}"
    )
}

fn letter(mail: &Mail) -> String {
    let sender = format!("{} <{}>", mail.from.name, mail.from.address.as_str());
    let headers = [
        ("From", escaped(sender.trim_start())),
        ("To", escaped(mail.to.as_str())),
        ("Subject", escaped(&mail.subject)),
        ("Date", time(mail.date)),
        ("Language", escaped(&mail.language)),
        ("Message-ID", escaped(&mail.message_id())),
    ];
    let headers = headers.map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>\n"));
    format!(
        "<p><a href=\"../mail\">All letters</a></p>\n<h1>{subject}</h1>\n<dl>\n{headers}</dl>\n\
         <iframe src=\"{id}/html\" title=\"The letter\" sandbox=\"allow-popups allow-popups-to-escape-sandbox\"></iframe>\n\
         <h2>Plain text</h2>\n<pre>{text}</pre>",
        subject = escaped(&mail.subject),
        headers = headers.concat(),
        id = mail.id,
        text = escaped(&mail.text),
    )
}

/// The HTML as it was sent, but for where its links open: the pages that they lead to refuse to be framed.
fn framed(mail: &Mail) -> Response {
    let html = mail
        .html
        .replacen("<head>", "<head><base target=\"_blank\">", 1);
    let mut response = Html(html).into_response();
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(LETTER_POLICY),
    );
    response
}

fn time(at: Timestamp) -> String {
    let exact = at.to_string();
    let shown: String = exact.chars().take(19).collect();
    let shown = shown.replace('T', " ");
    format!("<time datetime=\"{exact}\">{shown} UTC</time>")
}
