//! Pages in a browser.

use greenroom_testkit::{page::Site, tap::Tap};
use serde_json::json;

#[tokio::test]
async fn a_page_has_livekits_sdk_and_tells_what_it_sees() {
    let script = r#"
        import { Room } from "livekit-client";
        import { settings, tell } from "testkit";
        const devices = await Room.getLocalDevices("audioinput");
        await tell("seen", { name: settings.name, devices: devices.length });"#;
    let site = Site::serve(&[("/page.mjs", script)]).await.unwrap();
    let mut page = site.open(json!({"name": "ann"})).await.unwrap();
    let seen = page.tells("seen", 0).await.unwrap();
    assert_eq!(seen["name"], "ann");
    assert!(seen["devices"].as_u64().unwrap() > 0, "{seen}");
}

#[tokio::test]
async fn a_page_that_fails_says_so_at_once() {
    for (script, why) in [
        (r#"import { settings } from "testkit"; settings.nothing.at.all;"#, "TypeError"),
        (r#"import "testkit"; throw new Error("on purpose");"#, "on purpose"),
        (r#"import "testkit"; await Promise.reject("in vain");"#, "in vain"),
    ] {
        let site = Site::serve(&[("/page.mjs", script)]).await.unwrap();
        let mut page = site.open(json!({})).await.unwrap();
        let failed = page.tells("anything", 0).await.unwrap_err();
        assert!(format!("{failed:#}").contains(why), "{failed:#}");
    }
}

#[tokio::test]
async fn a_tap_keeps_what_a_page_asks_of_somebody_else() {
    let other = Site::serve(&[("/page.mjs", "")]).await.unwrap();
    let tap = Tap::to(other.origin()).await.unwrap();
    let script = r#"
        import { settings, tell } from "testkit";
        const asked = fetch(settings.other, { method: "PUT", body: "{}", headers: { "X-Own": "1" } });
        await tell("refused", { why: await asked.catch(String) });"#;
    let site = Site::serve(&[("/page.mjs", script)]).await.unwrap();
    let origin = site.origin().to_owned();
    let settings = json!({"other": format!("{}/testkit.mjs", tap.address())});
    let mut page = site.open(settings).await.unwrap();
    assert_eq!(page.tells("refused", 0).await.unwrap()["why"], "TypeError: Failed to fetch");
    let requests = tap.requests().await.unwrap();
    let [asked] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("OPTIONS", "/testkit.mjs"));
    assert_eq!(asked.header("origin"), origin);
    assert_eq!(asked.header("access-control-request-headers"), "x-own");
}
