//! A real browser against the app of `examples/embed.rs`: pages, tabs, and pages of other sites.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::Stdio,
};

use super::{Running, command, installed, repository, run};

/// The example as `cargo test` has built it, beside this test.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let target = test.ancestors().nth(2).expect("a target folder");
    target.join("examples/embed")
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_share_a_session_that_no_foreign_page_can_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut app = command(example(), &[]);
    app.arg(folder.path())
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped());
    let mut app = Running::start(&mut app);
    let out = BufReader::new(app.0.stdout.take().expect("piped"));
    let line = out.lines().next().expect("a line").expect("text");
    let port = line.rsplit(':').next().expect("a port");

    let script = repository("tests/neighbours/browser/tabs.mjs");
    let modules = installed("DOORWARD_TEST_NPM").join("browser/node_modules");
    // Modules are looked for beside the script that asks for them.
    let copy = folder.path().join("tabs.mjs");
    std::fs::copy(script, &copy).expect("copied");
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).expect("linked");
    let chromium = installed("DOORWARD_TEST_CHROMIUM");
    let url = format!("http://localhost:{port}");
    let chromium = chromium.to_str().expect("a plain path");
    let mut tabs = command("node", &[("APP_URL", &url), ("CHROMIUM", chromium)]);
    tabs.arg(copy);
    let out = run(tabs).await;
    assert!(out.lines().count() >= 5, "{out}");
}
