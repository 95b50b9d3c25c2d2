//! The OpenAPI document in the hands of tools: a validator takes it, and a client made from it works.

use super::{command, installed, repository, run};
use crate::program::Place;

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_valid() {
    let place = Place::new();
    let document = place.run(&["openapi"], &[]).answer();
    let file = place.write("openapi.json", &document);
    let mut validator = command(installed("DOORWARD_TEST_PYTHON"), &[]);
    validator.args(["-m", "openapi_spec_validator"]).arg(file);
    let out = run(validator).await;
    assert!(out.contains("OK"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_client_compiles_and_walks() {
    let place = Place::new();
    let server = place.serve(&[]);
    let document = place.run(&["openapi"], &[]).answer();
    let file = place.write("openapi.json", &document);
    let modules = installed("DOORWARD_TEST_NPM").join("generated/node_modules");
    let modules = modules.to_str().expect("a plain path");
    let built = place.path("built");
    let mut generate = command(
        repository("tests/neighbours/generated/generate.sh"),
        &[("NODE_MODULES", modules)],
    );
    generate.arg(file).arg(&built);
    run(generate).await;
    let url = format!("http://{}", server.address);
    let mut walk = command("node", &[("DOORWARD_URL", &url)]);
    walk.arg(built.join("walk.js"));
    let out = run(walk).await;
    assert!(out.lines().count() >= 6, "{out}");
}
