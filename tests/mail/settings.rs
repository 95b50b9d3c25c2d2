//! `[mail]`: what is refused before anything is sent.

use doorward::{
    clock::Span,
    mail::{
        open::open_mailer,
        settings::{MailSettings, SmtpTls, Transport},
    },
};

use super::sent_by;

/// Settings that pass, with this transport.
fn sound(transport: Transport) -> MailSettings {
    let mut settings = MailSettings {
        transport,
        from: "Doorward <no-reply@example.org>".to_owned(),
        ..MailSettings::default()
    };
    settings.smtp.host.push_str("smtp.example.org");
    settings.sendgrid.api_key = "SG.key".into();
    settings
}

/// The key that is named when such settings are changed so.
fn refused(transport: Transport, change: impl FnOnce(&mut MailSettings)) -> String {
    let mut settings = sound(transport);
    settings.check(true).expect("sound settings");
    change(&mut settings);
    settings.check(true).expect_err("refused").key
}

#[test]
fn the_sender_is_a_name_and_an_address() {
    for (from, name, address) in [
        ("no-reply@example.org", "", "no-reply@example.org"),
        ("<no-reply@example.org>", "", "no-reply@example.org"),
        ("Die Tür <a@example.org>", "Die Tür", "a@example.org"),
        (
            "\"Door, Inc.\" <a@example.org>",
            "Door, Inc.",
            "a@example.org",
        ),
    ] {
        let mut settings = sound(Transport::Smtp);
        settings.from = from.to_owned();
        let sender = settings.sender().expect(from);
        assert_eq!(
            (sender.name.as_str(), sender.address.as_str()),
            (name, address)
        );
    }
    for from in [
        "",
        "Doorward",
        "Doorward <doorward>",
        "a <b@example.org> <c@example.org>",
        "Door\r\nBcc: x <a@example.org>",
        "a@example.org, b@example.org",
    ] {
        assert_eq!(
            refused(Transport::Smtp, |s| s.from = from.to_owned()),
            "mail.from"
        );
    }
    let without = MailSettings {
        transport: Transport::Memory,
        ..MailSettings::default()
    };
    let sender = without.sender().expect("a fallback");
    assert_eq!(sender.address.as_str(), "doorward@localhost.example");
}

/// ASVS 12.3.1.
#[test]
fn what_would_send_secrets_in_plain_text_is_refused() {
    let smtp = |change: fn(&mut MailSettings)| refused(Transport::Smtp, change);
    assert_eq!(smtp(|s| s.smtp.tls = SmtpTls::None), "mail.smtp.tls");
    let with_password = |s: &mut MailSettings| {
        s.smtp.tls = SmtpTls::None;
        s.smtp.host = "127.0.0.1".to_owned();
        s.smtp.username = "doorward".to_owned();
        s.smtp.password = "secret".into();
    };
    assert_eq!(smtp(with_password), "mail.smtp.tls");
    let mut settings = sound(Transport::Smtp);
    with_password(&mut settings);
    settings.smtp.username.clear();
    settings.smtp.password = "".into();
    assert_eq!(settings.check(true), Ok(()));
    settings.smtp.host = "relay.example.org".to_owned();
    settings.smtp.allow_plain = true;
    assert_eq!(settings.check(true), Ok(()));

    let mut settings = sound(Transport::Sendgrid);
    settings.sendgrid.base_url = "http://api.example.org".to_owned();
    assert_eq!(settings.check(false), Ok(()));
    let key = settings.check(true).expect_err("refused").key;
    assert_eq!(key, "mail.sendgrid.base_url");
    for own in ["http://localhost:8025", "http://[::1]:8025/"] {
        settings.sendgrid.base_url = own.to_owned();
        assert_eq!(settings.check(true), Ok(()));
    }
}

#[test]
fn what_cannot_be_obeyed_is_refused() {
    use Transport::{File, Sendgrid, Smtp};
    type Change = fn(&mut MailSettings);
    let cases: [(Transport, Change, &str); 19] = [
        (Smtp, |s| s.transport = Transport::Memory, "mail.transport"),
        (Smtp, |s| s.language = "en us".to_owned(), "mail.language"),
        (
            Smtp,
            |s| s.language_attribute = "a b".to_owned(),
            "mail.language_attribute",
        ),
        (Smtp, |s| s.concurrency = 0, "mail.concurrency"),
        (
            Smtp,
            |s| s.send_timeout = Span::millis(10),
            "mail.send_timeout",
        ),
        (
            Smtp,
            |s| s.give_up_after = Span::days(31),
            "mail.give_up_after",
        ),
        (Smtp, |s| s.smtp.host.clear(), "mail.smtp.host"),
        (
            Smtp,
            |s| s.smtp.host = "smtp.example.org:25".to_owned(),
            "mail.smtp.host",
        ),
        (
            Smtp,
            |s| s.smtp.username = "doorward".to_owned(),
            "mail.smtp.password",
        ),
        (
            Smtp,
            |s| s.smtp.password = "secret".into(),
            "mail.smtp.username",
        ),
        (
            Smtp,
            |s| {
                s.smtp.username = "doorward".to_owned();
                s.smtp.password = "a\0b".into();
            },
            "mail.smtp.password",
        ),
        (
            Smtp,
            |s| s.smtp.cert_file.push_str("own.pem"),
            "mail.smtp.key_file",
        ),
        (
            Smtp,
            |s| s.smtp.key_file.push_str("own.pem"),
            "mail.smtp.cert_file",
        ),
        (
            Smtp,
            |s| {
                s.smtp.cert_file.push_str("own.pem");
                s.smtp.key_file.push_str("own.pem");
                (s.smtp.tls, s.smtp.allow_plain) = (SmtpTls::None, true);
            },
            "mail.smtp.cert_file",
        ),
        (
            Sendgrid,
            |s| s.sendgrid.api_key = "".into(),
            "mail.sendgrid.api_key",
        ),
        (
            Sendgrid,
            |s| s.sendgrid.api_key = "a\nb".into(),
            "mail.sendgrid.api_key",
        ),
        (
            Sendgrid,
            |s| s.sendgrid.base_url = "https://a:b@example.org".to_owned(),
            "mail.sendgrid.base_url",
        ),
        (
            Sendgrid,
            |s| s.sendgrid.base_url.clear(),
            "mail.sendgrid.base_url",
        ),
        (File, |s| s.file.folder.clear(), "mail.file.folder"),
    ];
    for (transport, change, key) in cases {
        assert_eq!(refused(transport, change), key);
    }
    let mut settings = sound(Smtp);
    settings.smtp.password = "hunter2".into();
    settings.sendgrid.base_url = "https://user:hunter2@example.org".to_owned();
    for transport in [Smtp, Sendgrid] {
        settings.transport = transport;
        let said = settings.check(true).expect_err("refused").to_string();
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn each_form_of_tls_has_its_port() {
    let mut settings = sound(Transport::Smtp).smtp;
    for (tls, port) in [
        (SmtpTls::Starttls, 587),
        (SmtpTls::Implicit, 465),
        (SmtpTls::None, 25),
    ] {
        settings.tls = tls;
        assert_eq!(settings.effective_port(), port);
    }
    settings.port = 2525;
    assert_eq!(settings.effective_port(), 2525);
}

#[tokio::test]
async fn the_chosen_transport_is_opened() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for transport in [Transport::Smtp, Transport::Sendgrid, Transport::File] {
        let mut settings = sound(transport);
        settings.file.folder = folder.path().join("mail");
        let opened = open_mailer(&settings).expect("opened").expect("some");
        assert!(opened.mailbox.is_none());
    }
    assert!(
        open_mailer(&sound(Transport::None))
            .expect("opened")
            .is_none()
    );
    let memory = open_mailer(&sound(Transport::Memory)).expect("opened");
    let memory = memory.expect("some");
    assert_eq!(sent_by(memory.mailer.as_ref()).await, Ok(()));
    assert_eq!(memory.mailbox.expect("a mailbox").letters().len(), 1);
}
