//! `PUT`, `If-Match`, dry runs and revisions: a wish is changed, and the same again changes nothing.

use hyper::Method;
use serde_json::json;

use crate::api::TestApi;

#[tokio::test]
async fn applying_makes_changes_and_then_changes_nothing() {
    let api = TestApi::start("apply").await;
    let path = "/v1/services/web";
    let first = r#"{"image":"a:1","env":{"K":"1"},"replicas":2}"#;
    let made = api.put(path, first).await;
    assert_eq!(
        (made.status, &made.body["outcome"]),
        (201, &json!("created"))
    );
    assert_eq!(made.body["service"]["replicas"], 2);
    for _ in 0..2 {
        let again = api.put(path, first).await;
        assert_eq!(
            (again.status, &again.body["outcome"]),
            (200, &json!("unchanged"))
        );
        assert_eq!(again.body["service"]["revision"], 1);
        assert_eq!(again.body["changes"], json!([]));
    }
    // Where replicas are not said, they stay as they are.
    let changed = api.put(path, r#"{"image":"a:2","env":{"K":"1"}}"#).await;
    assert_eq!(
        (changed.status, &changed.body["outcome"]),
        (200, &json!("changed"))
    );
    assert_eq!(changed.body["service"]["revision"], 2);
    assert_eq!(changed.body["service"]["replicas"], 2);
    let expected = json!([{"field": "image", "from": "a:1", "to": "a:2"}]);
    assert_eq!(changed.body["changes"], expected);
    // Another number of replicas is no revision.
    let scaled = api
        .put(path, r#"{"image":"a:2","env":{"K":"1"},"replicas":3}"#)
        .await;
    assert_eq!(scaled.body["outcome"], "changed");
    assert_eq!(scaled.body["service"]["revision"], 2);
    assert_eq!(scaled.body["service"]["replicas"], 3);
    let revisions = api.get("/v1/services/web/revisions").await;
    let items = revisions.body["items"].as_array().unwrap();
    let images: Vec<&str> = items
        .iter()
        .map(|item| item["spec"]["image"].as_str().unwrap())
        .collect();
    assert_eq!(images, ["a:1", "a:2"]);
    assert!(items[1]["created_ms"].as_u64().unwrap() > 0);
    api.get("/v1/services/none/revisions")
        .await
        .assert_problem(404, "service-not-found");
}

#[tokio::test]
async fn a_dry_run_tells_the_difference_and_changes_nothing() {
    let api = TestApi::start("dry").await;
    let path = "/v1/services/web?dry_run=true";
    let would = api.put(path, r#"{"image":"a:1"}"#).await;
    assert_eq!(
        (would.status, &would.body["outcome"]),
        (200, &json!("created"))
    );
    api.get("/v1/services/web")
        .await
        .assert_problem(404, "service-not-found");
    api.put("/v1/services/web", r#"{"image":"a:1"}"#).await;
    let would = api
        .put(
            path,
            r#"{"image":"a:2","replicas":4,"registry":{"username":"u","password":"hush"}}"#,
        )
        .await;
    assert_eq!(would.body["outcome"], "changed");
    assert_eq!(would.body["service"]["revision"], 2);
    let expected = json!([
        {"field": "image", "from": "a:1", "to": "a:2"},
        {"field": "replicas", "from": 1, "to": 4},
        {"field": "registry", "from": null, "to": "(another secret)"},
    ]);
    assert_eq!(would.body["changes"], expected);
    assert!(!String::from_utf8_lossy(&would.bytes).contains("hush"));
    let stands = api.get("/v1/services/web").await;
    assert_eq!(stands.body["revision"], 1);
    assert_eq!(stands.body["replicas"], 1);
}

#[tokio::test]
async fn a_write_that_expects_another_revision_is_refused() {
    let api = TestApi::start("if-match").await;
    let path = "/v1/services/web";
    let with = |revision| [("content-type", "application/json"), ("if-match", revision)];
    let body = r#"{"image":"a:1"}"#;
    let absent = api.send(Method::PUT, path, &with("1"), body).await;
    absent.assert_problem(412, "revision-moved");
    let made = api.send(Method::PUT, path, &with("0"), body).await;
    assert_eq!(made.status, 201);
    let there = api.send(Method::PUT, path, &with("0"), body).await;
    there.assert_problem(412, "revision-moved");
    let changed = api
        .send(Method::PUT, path, &with("\"1\""), r#"{"image":"a:2"}"#)
        .await;
    assert_eq!(changed.status, 200);
    let dry = format!("{path}?dry_run=true");
    for (method, path, body) in [
        (Method::PUT, path, r#"{"image":"a:3"}"#),
        (Method::PUT, dry.as_str(), r#"{"image":"a:3"}"#),
        (Method::PATCH, "/v1/services/web/scale", r#"{"replicas":2}"#),
        (Method::DELETE, path, ""),
    ] {
        let refused = api.send(method, path, &with("1"), body).await;
        refused.assert_problem(412, "revision-moved");
    }
    let stands = api.get(path).await;
    assert_eq!(stands.body["spec"]["image"], "a:2");
    let scaled = api
        .send(
            Method::PATCH,
            "/v1/services/web/scale",
            &with("2"),
            r#"{"replicas":2}"#,
        )
        .await;
    assert_eq!((scaled.status, &scaled.body["replicas"]), (200, &json!(2)));
    let bad = api.send(Method::PUT, path, &with("x"), body).await;
    bad.assert_problem(400, "invalid-request");
    let deleted = api.send(Method::DELETE, path, &with("2"), "").await;
    assert_eq!(deleted.status, 202);
}

#[tokio::test]
async fn the_name_is_the_addresss_and_labels_select() {
    let api = TestApi::start("labels").await;
    let other = api
        .put("/v1/services/web", r#"{"name":"other","image":"a"}"#)
        .await;
    other.assert_problem(400, "invalid-request");
    for (name, project) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let body = json!({"image": "i", "labels": {"project": project}}).to_string();
        let made = api.put(&format!("/v1/services/{name}"), body).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    let found = api.get("/v1/services?label=project%3Dx").await;
    assert_eq!(found.texts("items", "name"), ["a", "c"]);
    let page = api.get("/v1/services?label=project%3Dx&limit=1").await;
    assert_eq!(page.texts("items", "name"), ["a"]);
    let bad = api.get("/v1/services?label=project").await;
    bad.assert_problem(400, "invalid-request");
}
