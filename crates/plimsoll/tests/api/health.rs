//! `/healthz`, `/readyz`, `/metrics`, `/api/docs`

use serde_json::json;

use crate::site::Site;

#[tokio::test]
async fn it_is_healthy_and_says_why_it_is_not_ready() {
    let site = Site::new().await;
    site.by("", "GET", "/healthz", None).await.is(200);
    site.app
        .tasks
        .report("reconcile", 1, 2, Err("no engine".into()));
    let ready = site.by("", "GET", "/readyz", None).await.is(503);
    assert_eq!(
        (&ready["ready"], &ready["ledger"]),
        (&json!(false), &json!("ok"))
    );
    assert_ne!(ready["engine"], "ok");
    assert_eq!(ready["tasks"]["reconcile"]["outcome"], "no engine");
}

#[tokio::test]
async fn metrics_count_everybody_and_every_decision() {
    let site = Site::new().await;
    site.user("ada", "member").await;
    site.ask("POST", "/api/teams", json!({"name": "ml"}))
        .await
        .is(201);
    site.member("ml", "ada", json!({})).await;
    site.reserve("ada", 2.0).await.is(201);
    site.reserve("ada", 900.0)
        .await
        .fails(403, "quota_exceeded");
    for refused in 1..3 {
        let text = site.get("/metrics").await;
        let text = text.as_str().unwrap();
        let gib = 1_u64 << 30;
        for line in [
            format!(
                "plimsoll_reserved_memory_bytes{{entity_type=\"user\",entity=\"ada\"}} {}",
                2 * gib
            ),
            format!(
                "plimsoll_reserved_memory_bytes{{entity_type=\"team\",entity=\"ml\"}} {}",
                2 * gib
            ),
            format!(
                "plimsoll_limit_memory_bytes{{entity_type=\"user\",entity=\"ada\"}} {}",
                8 * gib
            ),
            "plimsoll_reserved_cpu_cores{entity_type=\"system\",entity=\"system\"} 0.1".to_owned(),
            "plimsoll_decisions_total{outcome=\"allowed\"} 1".to_owned(),
            format!("plimsoll_decisions_total{{outcome=\"refused\"}} {refused}"),
            "# TYPE plimsoll_decisions_total counter".to_owned(),
            "plimsoll_open_violations 0".to_owned(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        site.reserve("ada", 900.0)
            .await
            .fails(403, "quota_exceeded");
    }
}

#[tokio::test]
async fn the_page_runs_nothing_and_asks_nobody_else() {
    let site = Site::new().await;
    let answer = site.by("", "GET", "/api/docs", None).await;
    let policy = answer.header("content-security-policy").to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = answer.is(200);
    let page = page.as_str().unwrap();
    assert!(page.contains("/api/quotas/validate") && !page.contains("<script"));
}
