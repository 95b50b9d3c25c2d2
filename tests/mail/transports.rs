//! SMTP against a real mail server, the folder, and the mailbox in memory.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use doorward::{
    mail::{
        Mailer, SendError,
        file::FileMailer,
        memory::MemoryMailer,
        open::open_mailer,
        settings::{FileSettings, SmtpSettings, SmtpTls},
        smtp::SmtpMailer,
    },
    setting::BadSetting,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

use super::{later, letter, refused, sent_by};
use crate::harness::{
    smtp::{Misbehaviour, Options, Rule, SmtpSink, Stage, code, link_token},
    until,
};

fn mailer(settings: &SmtpSettings) -> SmtpMailer {
    SmtpMailer::new(settings).expect("settings that can be obeyed")
}

fn sink(tls: SmtpTls) -> SmtpSink {
    SmtpSink::start(Options {
        tls,
        ..Options::default()
    })
}

/// ASVS 1.3.11.
#[tokio::test]
async fn a_letter_arrives_as_it_was_written() {
    let sink = sink(SmtpTls::None);
    let mailer = mailer(&sink.settings());
    assert_eq!(sent_by(&mailer).await, Ok(()));
    assert_eq!(sent_by(&mailer).await, Ok(()));
    let letters = sink.wait_for(2).await;
    let [first, second] = letters.as_slice() else {
        panic!("{letters:?}");
    };
    assert_eq!(first.to, ["ann@example.org"]);
    assert_eq!(first.mail_from, "no-reply@example.org");
    assert_eq!(first.hello, "example.org");
    assert_eq!((first.encrypted, &first.user), (false, &None));
    assert_eq!(first.subject, "Grüße von der Tür");
    let written = letter(1, "ann@example.org");
    assert_eq!(first.text.trim_end(), written.text.trim_end());
    assert_eq!(first.html.trim_end(), written.html);
    assert_eq!(first.message_id, written.message_id());
    for (name, value) in [
        ("From", "Türsteher <no-reply@example.org>"),
        ("To", "ann@example.org"),
        ("Date", "Tue, 14 Nov 2023 22:13:20 +0000"),
        ("Auto-Submitted", "auto-generated"),
        ("X-Auto-Response-Suppress", "All"),
        ("Content-Language", "de"),
        ("MIME-Version", "1.0"),
    ] {
        assert_eq!(first.header(name), value);
    }
    let kind = first.header("Content-Type");
    assert!(kind.starts_with("multipart/alternative"), "{kind}");
    assert!(first.raw.is_ascii());
    assert_eq!(first.raw, second.raw, "a letter sent again is the same");
    assert_eq!(link_token(&first.text), Some("ab-c_1"));
    assert_eq!(code(&first.text), Some("123456"));
    until("both connections have ended politely", async || {
        sink.count("quit") == 2
    })
    .await;
}

/// ASVS 1.3.11.
#[tokio::test]
async fn no_text_adds_a_header_or_a_recipient() {
    let sink = sink(SmtpTls::None);
    let mut mail = letter(1, "ann@example.org");
    let planted = "x\r\nBcc: eve@example.org\r\n\r\nbody\n.\r\n\", <eve@example.org>\0";
    mail.subject = planted.to_owned();
    mail.from.name = planted.to_owned();
    mail.language = planted.to_owned();
    mail.text = "a\r.\rQUIT\r\n.\r\n..\nb\0\u{1b}\n".to_owned();
    assert_eq!(mailer(&sink.settings()).send(&mail).await, Ok(()));
    let letter = &sink.wait_for(1).await[0];
    assert_eq!(letter.to, ["ann@example.org"]);
    let names: Vec<&str> = letter
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "Auto-Submitted",
            "X-Auto-Response-Suppress",
            "Content-Language",
            "MIME-Version",
            "Content-Type",
        ]
    );
    assert!(
        letter
            .subject
            .starts_with("x  Bcc: eve@example.org    body")
    );
    assert_eq!(letter.from, ["no-reply@example.org"]);
    assert_eq!(letter.text.trim_end(), "a\n.\nQUIT\n.\n..\nb");
    let mut bytes = letter.raw.iter().zip(&letter.raw[1..]);
    assert!(bytes.all(|(a, b)| (*a == b'\r') == (*b == b'\n')));
}

/// ASVS 12.3.1, 12.3.2.
#[tokio::test]
async fn tls_and_passwords_work_in_every_form() {
    for (tls, login_only) in [
        (SmtpTls::Starttls, false),
        (SmtpTls::Starttls, true),
        (SmtpTls::Implicit, false),
    ] {
        let sink = SmtpSink::start(Options {
            tls,
            login_only,
            auth: Some(("doorward", "pässword")),
            ..Options::default()
        });
        assert_eq!(sent_by(&mailer(&sink.settings())).await, Ok(()));
        let letter = &sink.wait_for(1).await[0];
        assert!(letter.encrypted);
        assert_eq!(letter.user.as_deref(), Some("doorward"));
    }
}

#[tokio::test]
async fn wrong_credentials_leave_the_letter_its_chances() {
    let sink = SmtpSink::start(Options {
        tls: SmtpTls::Starttls,
        auth: Some(("doorward", "right")),
        ..Options::default()
    });
    let mut settings = sink.settings();
    settings.password = "wrong".into();
    assert_eq!(sent_by(&mailer(&settings)).await, later("535 at AUTH"));
    settings.username.clear();
    settings.password = "".into();
    assert_eq!(sent_by(&mailer(&settings)).await, later("530 at MAIL"));
    assert_eq!((sink.count("auth"), sink.count("letter")), (1, 0));
}

/// ASVS 12.3.1, 12.3.2: a certificate that nobody vouches for, or somebody else's, is no encryption.
#[tokio::test]
async fn nothing_is_said_to_a_server_that_is_not_who_it_should_be() {
    let another = sink(SmtpTls::Implicit);
    for tls in [SmtpTls::Starttls, SmtpTls::Implicit] {
        let named_otherwise = SmtpSink::start(Options {
            tls,
            certificate_for: "mail.example.org",
            ..Options::default()
        });
        let ours = sink(tls);
        let of = |ca_file: String| SmtpSettings {
            ca_file,
            ..ours.settings()
        };
        let stage = match tls {
            SmtpTls::Starttls => "STARTTLS",
            _ => "the connection",
        };
        let distrust = later(&format!("certificate not trusted at {stage}"));
        for settings in [
            of(another.ca_file()),
            of(String::new()),
            named_otherwise.settings(),
        ] {
            assert_eq!(sent_by(&mailer(&settings)).await, distrust);
        }
        assert_eq!((ours.count("mail"), named_otherwise.count("mail")), (0, 0));
    }
}

/// ASVS 12.3.5: a server that wants to know who sends is shown a certificate.
#[tokio::test]
async fn a_certificate_is_shown_to_a_server_that_asks() {
    let stranger = sink(SmtpTls::Implicit);
    for tls in [SmtpTls::Starttls, SmtpTls::Implicit] {
        let sink = SmtpSink::start(Options {
            tls,
            wants_certificate: true,
            ..Options::default()
        });
        let showing = |cert_file: String, key_file: String| SmtpSettings {
            cert_file,
            key_file,
            ..sink.settings()
        };
        let (own, key) = (sink.file("client.pem"), sink.file("client-key.pem"));
        let others = (stranger.file("client.pem"), stranger.file("client-key.pem"));
        for refused in [sink.settings(), showing(others.0.clone(), others.1)] {
            let outcome = sent_by(&mailer(&refused)).await;
            assert!(matches!(outcome, Err(SendError::Later(_))), "{outcome:?}");
        }
        assert_eq!(sink.count("mail"), 0);
        assert_eq!(
            sent_by(&mailer(&showing(own.clone(), key.clone()))).await,
            Ok(())
        );
        sink.wait_for(1).await;

        for (cert_file, key_file) in [
            (others.0, key.clone()),
            (own.clone(), own),
            (key.clone(), key),
        ] {
            let refused = SmtpMailer::new(&showing(cert_file, key_file)).map(drop);
            assert_eq!(refused.expect_err("refused").key, "mail.smtp.cert_file");
        }
    }
}

/// ASVS 12.3.1.
#[tokio::test]
async fn a_server_without_starttls_gets_no_letter() {
    let sink = sink(SmtpTls::None);
    let settings = SmtpSettings {
        tls: SmtpTls::Starttls,
        ..sink.settings()
    };
    let outcome = sent_by(&mailer(&settings)).await;
    assert_eq!(outcome, later("not offered by the server at STARTTLS"));
    assert_eq!(sink.count("mail"), 0);
}

/// RFC 3207 §4.2: answers in plain text, sent along with the one to STARTTLS, are not those to what is
/// asked in TLS.
#[tokio::test(flavor = "multi_thread")]
async fn answers_slipped_in_before_tls_are_not_taken() {
    let sink = SmtpSink::start(Options {
        tls: SmtpTls::Starttls,
        rules: vec![Rule::always(Stage::Rcpt, Misbehaviour::Refuse)],
        ..Options::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let between = SmtpSettings {
        host: "localhost".to_owned(),
        port: listener.local_addr().expect("an address").port(),
        ..sink.settings()
    };
    let port = sink.port();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a client");
        slip_answers_in(client, port).await;
    });
    assert_eq!(
        sent_by(&mailer(&between)).await,
        later("no TLS at STARTTLS")
    );
    assert_eq!(sink.letters().await.len(), 0);
}

/// Stands between a client and the server, and adds to the answer to STARTTLS.
async fn slip_answers_in(client: TcpStream, port: u16) {
    let server = TcpStream::connect(("127.0.0.1", port)).await;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.expect("connected").into_split();
    tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 4096];
    while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
        let mut said = buffer[..n].to_vec();
        if said.starts_with(b"220 Ready") {
            said.extend(b"250 sink\r\n250 ok\r\n250 ok\r\n354 go on\r\n250 taken\r\n");
        }
        if to_client.write_all(&said).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn where_a_refusal_falls_decides_what_it_means() {
    use Misbehaviour::{Drop, Later, Policy, Refuse};
    use Stage::{Connect, Content, Data, Mail, Rcpt};
    let sink = sink(SmtpTls::None);
    let mailer = mailer(&sink.settings());
    for (stage, action, outcome) in [
        (Connect, Refuse, later("554 at the connection")),
        (Connect, Later, later("421 at the connection")),
        (Mail, Refuse, later("550 at MAIL")),
        (Rcpt, Refuse, refused("550 at RCPT")),
        (Rcpt, Later, later("451 at RCPT")),
        (Rcpt, Policy, later("553 at RCPT")),
        (Data, Refuse, refused("550 at DATA")),
        (Content, Refuse, refused("550 at the end of DATA")),
        (Content, Later, later("451 at the end of DATA")),
    ] {
        sink.behave(&[Rule::always(stage, action)]);
        assert_eq!(sent_by(&mailer).await, outcome, "{stage:?}");
    }
    for stage in [Connect, Rcpt, Data] {
        sink.behave(&[Rule::always(stage, Drop)]);
        let said = sent_by(&mailer).await.expect_err("hung up").to_string();
        assert!(said.starts_with("not now: "), "{said}");
    }
    assert_eq!((sink.drops(), sink.letters().await.len()), (3, 0));
    sink.behave(&[Rule::always(Rcpt, Refuse).to("bob@example.org")]);
    assert_eq!(sent_by(&mailer).await, Ok(()));
    let to_bob = mailer.send(&letter(2, "bob@example.org")).await;
    assert_eq!(to_bob, refused("550 at RCPT"));
}

/// Better twice than never.
#[tokio::test]
async fn a_letter_whose_receipt_is_lost_is_to_be_sent_again() {
    let sink = sink(SmtpTls::None);
    let mailer = mailer(&sink.settings());
    sink.behave(&[Rule::always(Stage::Content, Misbehaviour::Drop).sometimes(0.5)]);
    let mut lost = 0;
    for _ in 0..12 {
        lost += usize::from(sent_by(&mailer).await.is_err());
    }
    assert_eq!(sink.drops(), lost);
    assert!((1..12).contains(&lost), "{lost}");
    assert_eq!(sink.letters().await.len(), 12);
}

#[tokio::test]
async fn a_farewell_is_not_waited_for() {
    let sink = sink(SmtpTls::None);
    let mailer = mailer(&sink.settings());
    for action in [Misbehaviour::Drop, Misbehaviour::Stall] {
        sink.behave(&[
            Rule::always(Stage::Quit, action),
            Rule::always(Stage::Rcpt, Misbehaviour::Refuse).to("bob@example.org"),
        ]);
        let soon = Duration::from_secs(4);
        let outcome = tokio::time::timeout(soon, sent_by(&mailer)).await;
        assert_eq!(outcome, Ok(Ok(())));
        let bob = letter(2, "bob@example.org");
        let outcome = tokio::time::timeout(soon, mailer.send(&bob)).await;
        assert_eq!(outcome, Ok(refused("550 at RCPT")));
    }
}

#[tokio::test]
async fn the_caller_decides_how_long_a_silent_server_is_waited_for() {
    let sink = sink(SmtpTls::None);
    let mailer = mailer(&sink.settings());
    for stage in [Stage::Connect, Stage::Mail, Stage::Data] {
        sink.behave(&[Rule::always(stage, Misbehaviour::Stall)]);
        let waiting = tokio::time::timeout(Duration::from_millis(300), sent_by(&mailer));
        assert!(waiting.await.is_err(), "{stage:?}");
    }
    sink.behave(&[]);
    assert_eq!(sent_by(&mailer).await, Ok(()));
    assert_eq!(sink.letters().await.len(), 1);
}

#[tokio::test]
async fn a_server_that_comes_back_is_found() {
    let mut sink = sink(SmtpTls::None);
    let opened = open_mailer(&sink.mail_settings()).expect("opened");
    let mailer = opened.expect("some").mailer;
    sink.stop();
    let outcome = sent_by(mailer.as_ref()).await;
    assert_eq!(outcome, later("connection refused at the connection"));
    sink.start_again();
    assert_eq!(sent_by(mailer.as_ref()).await, Ok(()));
    assert_eq!(sink.wait_for(1).await.len(), 1);
}

/// ASVS 14.2.4: the files hold one-time secrets.
#[tokio::test]
async fn a_folder_takes_each_letter_once_and_for_its_owner_alone() {
    let base = tempfile::tempdir().expect("a temporary folder");
    let folder = base.path().join("data/mail");
    let settings = FileSettings {
        folder: folder.clone(),
    };
    let mailer = FileMailer::new(&settings).expect("a folder");
    let mode = |path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(folder.clone()), 0o700);
    let mut mail = letter(1, "ann@example.org");
    assert_eq!(mailer.send(&mail).await, Ok(()));
    mail.subject = "once more".to_owned();
    assert_eq!(mailer.send(&mail).await, Ok(()));
    let files = std::fs::read_dir(&folder).expect("a folder");
    let names: Vec<String> = files
        .map(|f| f.expect("a file").file_name().display().to_string())
        .collect();
    assert_eq!(names, [format!("{}.eml", mail.id)]);
    let file = folder.join(&names[0]);
    let text = std::fs::read_to_string(&file).expect("ASCII");
    assert!(text.contains("\r\nSubject: once more\r\n"), "{text}");
    assert_eq!(mode(file), 0o600);
    std::fs::remove_dir_all(&folder).expect("removed");
    std::fs::write(&folder, "").expect("written");
    assert!(sent_by(&mailer).await.is_err());
    let refused = FileMailer::new(&settings).map(drop).map_err(|e| e.key);
    assert_eq!(refused, Err("mail.file.folder".to_owned()));
}

#[tokio::test]
async fn memory_keeps_the_last_letters() {
    let mailbox = MemoryMailer::new();
    for number in 0..205 {
        let sent = mailbox.send(&letter(number, "ann@example.org")).await;
        assert_eq!(sent, Ok(()));
    }
    let again = letter(100, "bob@example.org");
    assert_eq!(mailbox.send(&again).await, Ok(()));
    let letters = mailbox.clone().letters();
    assert_eq!((letters.len(), letters[0].id), (200, again.id));
    let kept = mailbox.letter(again.id).expect("kept");
    assert_eq!(kept.to, again.to);
    assert!(mailbox.letter(letter(4, "ann@example.org").id).is_none());
    mailbox.clear();
    assert!(mailbox.letters().is_empty());
}

#[test]
fn an_authority_that_cannot_be_read_stops_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let junk = folder.path().join("junk.pem");
    std::fs::write(&junk, "junk").expect("written");
    for ca_file in [junk.display().to_string(), "/nowhere/ca.pem".to_owned()] {
        let refused = SmtpMailer::new(&SmtpSettings {
            host: "mail.example.org".to_owned(),
            ca_file,
            ..SmtpSettings::default()
        });
        let BadSetting { key, .. } = refused.err().expect("refused");
        assert_eq!(key, "mail.smtp.ca_file");
    }
}
