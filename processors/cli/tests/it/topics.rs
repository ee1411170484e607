use crate::support::{Scene, UP, eventually, text};

#[test]
fn topics_from_missing_to_as_specified_and_drift() {
    let scene = Scene::new();
    let plan = scene.claims(&["topics", "plan"]);
    assert_eq!(plan.status.code(), Some(3), "{}; {UP}", text(&plan));
    assert!(text(&plan).contains("missing"));

    let applied = scene.json(0, &["topics", "apply", "--json"]);
    assert_eq!(applied["created"].as_array().unwrap().len(), 3);
    eventually("topics as specified", || scene.claims(&["topics", "plan"]).status.code() == Some(0));

    // A changed wish: shown, left, changed when asked for.
    let wish = ["--set", "topics.settings.events.segment.ms=3600000"];
    let plan = scene.json(3, &[&wish[..], &["topics", "plan", "--json"]].concat());
    assert_eq!(plan["in_order"], false);
    assert_eq!(plan["topics"][0]["changes"][0]["key"], "segment.ms");
    scene.stdout(3, &[&wish[..], &["topics", "apply"]].concat());
    scene.stdout(3, &[&wish[..], &["topics", "plan"]].concat());
    scene.stdout(0, &[&wish[..], &["topics", "apply", "--yes"]].concat());
    eventually("the new setting", || {
        scene.claims(&[&wish[..], &["topics", "plan"]].concat()).status.code() == Some(0)
    });
    let described = scene.json(0, &["topics", "describe", "--json"]);
    assert_eq!(described[0]["actual"]["settings"]["segment.ms"], "3600000");

    let refused = scene.claims(&["topics", "apply", "--yes", "--set", "topics.partitions=4"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("new topic"), "{}", text(&refused));
}

#[test]
fn schemas_from_unknown_to_registered() {
    let scene = Scene::new();
    let check = scene.claims(&["schemas", "check"]);
    assert_eq!(check.status.code(), Some(3), "{}; {UP}", text(&check));
    let subjects = scene.json(0, &["schemas", "register", "--json"]);
    assert_eq!(subjects[0]["state"], "registered");
    assert_eq!(scene.json(0, &["schemas", "check", "--json"])["in_order"], true);

    let ours = scene.json(0, &["schemas", "show"]);
    let registered = scene.json(0, &["schemas", "show", "--registered"]);
    let subject = format!("{}-value", scene.config.topics.events);
    assert_eq!(ours[&subject]["name"], registered[&subject]["name"]);
    assert!(ours[&subject]["fields"].as_array().is_some_and(|fields| !fields.is_empty()));
}
