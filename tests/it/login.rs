//! A hub that was logged in to is where commands go that name nothing, for this user alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use llm_config_tests::hub::Hub;
use llm_config_tests::process::{Said, run_with};
use llm_config_tests::scratch::Scratch;
use serde_json::json;

#[tokio::test]
async fn commands_that_name_nothing_go_to_the_hub_that_was_logged_in_to() {
    let scratch = Scratch::new("login");
    let hub = Hub::dev(&scratch).await;
    let home = scratch.path("settings");
    let environment = vec![("XDG_CONFIG_HOME".to_owned(), home.to_str().unwrap().to_owned())];
    let cli =
        async |args: &[&str]| -> Said { run_with("llm-config", args.iter().copied(), &environment).await };
    let file = home.join("llm-config/hub.json");

    let before = cli(&["list", "app"]).await;
    assert_eq!(before.code, 2);
    assert!(before.err.contains("`llm-config login` to a hub"), "{}", before.err);
    let (url, wrong) = (format!("http://{}", hub.api), scratch.file("wrong.token", "lcm_wrong"));
    let refused = cli(&["login", &url, "--token-file", wrong.to_str().unwrap()]).await;
    assert_eq!((refused.code, file.exists()), (4, false), "{}", refused.err);
    let clear = cli(&["login", "http://hub.example:8080", "--token-file", wrong.to_str().unwrap()]).await;
    assert!(clear.code == 2 && clear.err.contains("in clear"), "{}", clear.err);

    let token = scratch.file("right.token", hub.token());
    let told = cli(&["login", &url, "--token-file", token.to_str().unwrap()]).await.done();
    assert!(told.starts_with(&format!("logged in to {url}")), "{told}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let folder = fs::metadata(file.parent().unwrap()).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    cli(&["set", "app", "k", "1"]).await.done();
    assert_eq!(cli(&["get", "app", "k"]).await.done().trim(), "1");
    let value = hub.client().get("/api/v1/configs/app/k").await.expect(200);
    assert_eq!(value["value"], json!(1));
    let named =
        cli(&["--hub", "http://127.0.0.1:1", "--token-file", token.to_str().unwrap(), "get", "app", "k"])
            .await;
    assert_eq!(named.code, 6, "what is named comes first: {}", named.err);

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let open = cli(&["get", "app", "k"]).await;
    assert!(open.code == 2 && open.err.contains("chmod 600"), "{}", open.err);
    let again = cli(&["logout"]).await.done();
    assert!(again.contains("stays valid") && !file.exists(), "{again}");
    assert_eq!(cli(&["get", "app", "k"]).await.code, 2);
}
