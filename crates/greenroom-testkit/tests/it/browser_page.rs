//! Tests of pages in a browser, and of the recording proxy.

use greenroom_testkit::browser_page::Site;
use greenroom_testkit::recording_proxy::RecordingProxy;
use serde_json::json;

#[tokio::test]
async fn page_can_use_livekits_sdk_and_send_reports() {
    let script = r#"
        import { Room } from "livekit-client";
        import { report, settings } from "testkit";
        const devices = await Room.getLocalDevices("audioinput");
        await report("loaded", { name: settings.name, devices: devices.length });"#;
    let site = Site::serve(&[("/page.mjs", script)]).await.unwrap();
    let mut page = site.open(json!({"name": "ann"})).await.unwrap();
    let loaded = page.wait_for_report("loaded", 0).await.unwrap();
    assert_eq!(loaded["name"], "ann");
    assert!(loaded["devices"].as_u64().unwrap() > 0, "{loaded}");
}

#[tokio::test]
async fn script_error_is_reported_at_once() {
    for (script, message) in [
        (r#"import { settings } from "testkit"; settings.absent.field;"#, "TypeError"),
        (r#"import "testkit"; throw new Error("thrown error");"#, "thrown error"),
        (r#"import "testkit"; await Promise.reject("rejected promise");"#, "rejected promise"),
    ] {
        let site = Site::serve(&[("/page.mjs", script)]).await.unwrap();
        let mut page = site.open(json!({})).await.unwrap();
        let error = page.wait_for_report("absent", 0).await.unwrap_err();
        assert!(format!("{error:#}").contains(message), "{error:#}");
    }
}

#[tokio::test]
async fn recording_proxy_records_requests_of_page_to_another_origin() {
    let other = Site::serve(&[("/page.mjs", "")]).await.unwrap();
    let proxy = RecordingProxy::start(other.origin()).await.unwrap();
    let script = r#"
        import { report, settings } from "testkit";
        const response = fetch(settings.other, { method: "PUT", body: "{}", headers: { "X-Own": "1" } });
        await report("refused", { error: await response.catch(String) });"#;
    let site = Site::serve(&[("/page.mjs", script)]).await.unwrap();
    let origin = site.origin().to_owned();
    let settings = json!({"other": format!("{}/testkit.mjs", proxy.address())});
    let mut page = site.open(settings).await.unwrap();
    let refused = page.wait_for_report("refused", 0).await.unwrap();
    assert_eq!(refused["error"], "TypeError: Failed to fetch");
    let requests = proxy.requests().await.unwrap();
    let [preflight] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((preflight.method.as_str(), preflight.path.as_str()), ("OPTIONS", "/testkit.mjs"));
    assert_eq!(preflight.header("origin"), origin);
    assert_eq!(preflight.header("access-control-request-headers"), "x-own");
}
