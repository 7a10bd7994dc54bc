//! The one list of routes: the router and the OpenAPI document are both made from it.

use std::sync::Arc;

use axum::routing::{MethodRouter, delete, get, patch, post, put};

use crate::state::App;

use super::{
    alerts, analytics, audit, certs, containers, decisions, docs, enforce, events, export, grants,
    health, history, images, metrics, notifications, projects, quotas, redistribute, requests,
    reservations, shadow, system, teams, tokens, usage, users, validate, violations,
};

/// One method on one path.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) handler: MethodRouter<Arc<App>>,
    /// Heading in the documentation.
    pub(super) tag: &'static str,
    /// One sentence.
    pub(super) summary: &'static str,
    /// Name of the request body's schema.
    pub(super) body: Option<&'static str>,
    /// Status and schema of the answer when all is well; `User[]` is a list of users.
    pub(super) answer: (u16, &'static str),
    /// Further statuses with the same answer.
    pub(super) also: &'static [u16],
    /// Query parameters.
    pub(super) query: &'static [&'static str],
    /// Anyone may ask, without a token.
    pub(super) open: bool,
}

impl Route {
    fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self
    }

    fn answers(mut self, status: u16, schema: &'static str) -> Self {
        self.answer = (status, schema);
        self
    }

    fn also(mut self, statuses: &'static [u16]) -> Self {
        self.also = statuses;
        self
    }

    fn query(mut self, names: &'static [&'static str]) -> Self {
        self.query = names;
        self
    }

    fn open(mut self) -> Self {
        self.open = true;
        self
    }
}

fn route(
    method: &'static str,
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    handler: MethodRouter<Arc<App>>,
) -> Route {
    Route {
        method,
        path,
        handler,
        tag,
        summary,
        body: None,
        answer: (200, ""),
        also: &[],
        query: &[],
        open: false,
    }
}

/// Query parameters of a history.
const HISTORY: &[&str] = &["metric", "from", "to", "step", "format"];

/// Every route.
#[rustfmt::skip]
pub(super) fn all() -> Vec<Route> {
    vec![
        route("get", "/api/quotas/user/{user}", "quotas", "A user's quota.", get(quotas::user)).answers(200, "Quota"),
        route("put", "/api/quotas/user/{user}", "quotas", "Change a user's quota; fields that are not given stay.", put(quotas::put_user)).body("QuotaChange").answers(200, "Quota"),
        route("get", "/api/quotas/team/{team}", "quotas", "A team's quota, pool and allotments.", get(quotas::team)).answers(200, "Quota"),
        route("put", "/api/quotas/team/{team}", "quotas", "Fix a team's limit (max* fields) or make it the sum of allotments and pool (sharedPool).", put(quotas::put_team)).body("TeamQuotaChange").answers(200, "Quota"),
        route("get", "/api/quotas/system", "quotas", "The system's quota.", get(quotas::system)).answers(200, "Quota"),
        route("put", "/api/quotas/system", "quotas", "Change the system's quota.", put(quotas::put_system)).body("QuotaChange").answers(200, "Quota"),
        route("post", "/api/quotas/validate", "quotas", "Would this fit? Decides as create would, and charges nothing.", post(validate::validate)).body("Validate").answers(200, "Validation"),
        route("post", "/api/quotas/enforce", "quotas", "Take the next step of the ladder now, wherever a limit is exceeded; dryRun only says which.", post(enforce::enforce)).body("Enforce").answers(200, "Enforced"),
        route("get", "/api/quotas/shadow", "quotas", "What limits that only watch would have refused since, and what the ladder would do now.", get(shadow::report)).answers(200, "ShadowReport").query(&["since"]),
        route("get", "/api/quotas/violations", "quotas", "Violations: open ones, or with a time those opened since, too.", get(violations::list)).answers(200, "OpenedViolation[]").query(&["since", "status", "user", "team", "kind", "level", "dimension"]),
        route("get", "/api/usage/user/{user}", "usage", "What a user uses and has reserved.", get(usage::user)).answers(200, "Usage"),
        route("get", "/api/usage/team/{team}", "usage", "What a team uses and has reserved.", get(usage::team)).answers(200, "Usage"),
        route("get", "/api/usage/system", "usage", "What everybody uses and has reserved together.", get(usage::system)).answers(200, "Usage"),
        route("get", "/api/usage/user/{user}/history", "usage", "What a user used over time: [t, average, maximum].", get(history::user)).answers(200, "History").query(HISTORY),
        route("get", "/api/usage/team/{team}/history", "usage", "What a team used over time.", get(history::team)).answers(200, "History").query(HISTORY),
        route("get", "/api/usage/project/{project}/history", "usage", "What a project used over time.", get(history::project)).answers(200, "History").query(HISTORY),
        route("get", "/api/usage/host/{host}/history", "usage", "What was used on a host over time, whoever used it.", get(history::host)).answers(200, "History").query(HISTORY),
        route("get", "/api/usage/container/{container}/history", "usage", "What a container used over time, by the engine's id.", get(history::container)).answers(200, "History").query(HISTORY),
        route("get", "/api/usage/system/history", "usage", "What everybody used together over time.", get(history::system)).answers(200, "History").query(HISTORY),
        route("get", "/api/usage/analytics", "usage", "Who or what used how much, most first. Hours count whole, of a percentile days.", get(analytics::breakdown)).answers(200, "Breakdown").query(&["groupBy", "metric", "from", "to", "interval", "compare", "percentile", "limit", "format"]),
        route("get", "/api/usage/export", "usage", "Everything that is kept, as CSV: every reading, or sums of 5 minutes, hours (unless told) or days.", get(export::export)).answers(200, "Table").query(&["level", "from", "to", "metric", "entityType"]),
        route("get", "/api/events", "events", "What is used and what changes, as it happens: server-sent events.", get(events::follow)).answers(200, "Events"),
        route("get", "/api/me", "people", "Who the caller is.", get(users::me)).answers(200, "Me"),
        route("get", "/api/users", "people", "Every user.", get(users::list)).answers(200, "User[]"),
        route("post", "/api/users", "people", "Add a user, with the quota of their class.", post(users::add)).body("NewUser").answers(201, "User"),
        route("get", "/api/users/{user}", "people", "A user and their teams.", get(users::show)).answers(200, "User"),
        route("patch", "/api/users/{user}", "people", "Suspend a user, or change mail address or uid.", patch(users::change)).body("UserChange").answers(200, "User"),
        route("delete", "/api/users/{user}", "people", "Delete a user; with drain, once they hold nothing.", delete(users::delete)).answers(204, "").also(&[202]).query(&["drain"]),
        route("get", "/api/users/{user}/certs", "people", "A user's client certificates.", get(certs::list)).answers(200, "Cert[]"),
        route("post", "/api/users/{user}/certs", "people", "Sign a client certificate for a key that stays with the caller.", post(certs::issue)).body("NewCert").answers(201, "IssuedCert"),
        route("delete", "/api/certs/{serial}", "people", "Revoke a client certificate; its connections end.", delete(certs::revoke)).answers(204, ""),
        route("get", "/api/teams", "people", "The teams the caller may see.", get(teams::list)).answers(200, "Team[]"),
        route("post", "/api/teams", "people", "Add a team.", post(teams::add)).body("NewTeam").answers(201, "Team"),
        route("get", "/api/teams/{team}", "people", "A team and its members.", get(teams::show)).answers(200, "Team"),
        route("delete", "/api/teams/{team}", "people", "Delete a team; with drain, once it holds nothing.", delete(teams::delete)).answers(204, "").also(&[202]).query(&["drain"]),
        route("get", "/api/teams/{team}/members", "people", "A team's members.", get(teams::members)).answers(200, "Member[]"),
        route("put", "/api/teams/{team}/members/{user}", "people", "Add a member or change their role, allotment and borrow limit.", put(teams::put_member)).body("PutMember").answers(200, "Member"),
        route("delete", "/api/teams/{team}/members/{user}", "people", "Take a member out of a team.", delete(teams::remove_member)).answers(204, "").query(&["drain"]),
        route("post", "/api/teams/{team}/redistribute", "people", "Move parts of a team's limit between its members and its pool; dryRun only tells who would borrow.", post(redistribute::make)).body("Redistribute").answers(201, "Redistribution").also(&[200]),
        route("get", "/api/teams/{team}/redistributions", "people", "What was moved within a team, newest first.", get(redistribute::list)).answers(200, "Redistribution[]"),
        route("post", "/api/teams/{team}/redistributions/{id}/undo", "people", "Take back what was moved.", post(redistribute::undo)).answers(200, "Redistribution"),
        route("get", "/api/grants", "quotas", "Additions for a time that the caller may see; those that are over with all.", get(grants::list)).answers(200, "Grant[]").query(&["all", "limit"]),
        route("post", "/api/grants", "quotas", "Add to the quota of a user or a team's pool, or to a member's allotment out of the pool.", post(grants::give)).body("NewGrant").answers(201, "Grant"),
        route("delete", "/api/grants/{id}", "quotas", "Take a grant back.", delete(grants::revoke)).answers(200, "Grant"),
        route("get", "/api/requests", "quotas", "Open requests that the caller may see; answered ones with all.", get(requests::list)).answers(200, "Request[]").query(&["all", "limit"]),
        route("post", "/api/requests", "quotas", "Ask for more, in the default team if none is named (`-` is none).", post(requests::ask)).body("NewRequest").answers(201, "Request"),
        route("get", "/api/requests/{id}", "quotas", "A request.", get(requests::show)).answers(200, "Request"),
        route("post", "/api/requests/{id}/approve", "quotas", "Give what a request asks, until its time or another.", post(requests::approve)).body("Reply").answers(200, "Request"),
        route("post", "/api/requests/{id}/deny", "quotas", "Deny a request.", post(requests::deny)).body("Words").answers(200, "Request"),
        route("delete", "/api/requests/{id}", "quotas", "Take a request back.", delete(requests::withdraw)).answers(200, "Request"),
        route("get", "/api/notifications", "notifications", "What the caller was told, newest first; only what is unread with unread.", get(notifications::list)).answers(200, "Inbox").query(&["unread", "cursor", "limit"]),
        route("post", "/api/notifications/read", "notifications", "Mark all of it as read.", post(notifications::read_all)).answers(200, "Unread"),
        route("post", "/api/notifications/{id}/read", "notifications", "Mark one as read.", post(notifications::read_one)).answers(200, "Unread"),
        route("post", "/api/notifications/test", "notifications", "Tell somebody, or the administrators, that they can be reached.", post(notifications::test)).body("Trial").answers(202, ""),
        route("get", "/api/notifications/deliveries", "notifications", "What goes over channels, newest first: when it is tried next, and what went wrong last.", get(notifications::deliveries)).answers(200, "Delivery[]").query(&["state", "limit"]),
        route("get", "/api/alerts", "notifications", "What is pending or fires, of the caller and their teams.", get(alerts::list)).answers(200, "Alert[]"),
        route("get", "/api/alerts/rules", "notifications", "What is watched.", get(alerts::rules)).answers(200, "AlertRule[]"),
        route("put", "/api/alerts/rules/{rule}", "notifications", "Add a rule, or replace the one of this name.", put(alerts::put_rule)).body("NewAlertRule").answers(200, "AlertRule").also(&[201]),
        route("delete", "/api/alerts/rules/{rule}", "notifications", "Remove a rule.", delete(alerts::remove_rule)).answers(204, ""),
        route("get", "/api/alerts/silences", "notifications", "Silences that last.", get(alerts::silences)).answers(200, "Silence[]"),
        route("post", "/api/alerts/silences", "notifications", "Tell nobody of what it means until then; without rule, name and part of anything.", post(alerts::add_silence)).body("NewSilence").answers(201, "Silence"),
        route("delete", "/api/alerts/silences/{id}", "notifications", "End a silence.", delete(alerts::end_silence)).answers(204, ""),
        route("get", "/api/projects", "people", "The projects the caller may see.", get(projects::list)).answers(200, "Project[]"),
        route("post", "/api/projects", "people", "Add a project to a team or a user.", post(projects::add)).body("NewProject").answers(201, "Project"),
        route("delete", "/api/projects/{id}", "people", "Delete a project.", delete(projects::delete)).answers(204, ""),
        route("get", "/api/classes", "people", "The quota classes.", get(system::classes)).answers(200, "Class[]"),
        route("put", "/api/classes/{class}", "people", "Say what is done where a limit of a class is exceeded.", put(system::put_class)).body("ClassChange").answers(200, "Class"),
        route("get", "/api/tokens", "people", "The caller's tokens; an administrator's view shows all.", get(tokens::list)).answers(200, "Token[]"),
        route("post", "/api/tokens", "people", "Make a token. Its secret is shown in this answer only.", post(tokens::add)).body("NewToken").answers(201, "NewSecret"),
        route("delete", "/api/tokens/{id}", "people", "Revoke a token.", delete(tokens::revoke)).answers(204, ""),
        route("post", "/api/reservations", "reservations", "Charge a claim if it fits.", post(reservations::reserve)).body("Reserve").answers(201, "Reservation").also(&[200]),
        route("get", "/api/reservations/{id}", "reservations", "A reservation.", get(reservations::show)).answers(200, "Reservation"),
        route("post", "/api/reservations/{id}/commit", "reservations", "Bind a reservation to the container made for it.", post(reservations::commit)).body("Commit").answers(200, "Reservation"),
        route("post", "/api/reservations/{id}/void", "reservations", "End a reservation that got no container.", post(reservations::void)).answers(200, "Reservation"),
        route("delete", "/api/reservations/{id}", "reservations", "Release a reservation whose container is gone.", delete(reservations::release)).answers(200, "Reservation"),
        route("get", "/api/containers", "reservations", "Containers with what they reserve and use.", get(containers::list)).answers(200, "ContainerList").query(&["user", "team", "project", "state"]),
        route("get", "/api/images", "images", "The host's images that are kept from tenants.", get(images::list)).answers(200, "ImageMark[]"),
        route("put", "/api/images", "images", "Keep one of the host's images from tenants, or give it to everybody.", put(images::mark)).body("MarkImage").answers(200, "ImageMark"),
        route("get", "/api/decisions", "decisions", "Admissions, newest first.", get(decisions::list)).answers(200, "Decision[]").query(&["user", "outcome", "cursor", "limit"]),
        route("get", "/api/decisions/{id}", "decisions", "One admission, with everything that was in its way.", get(decisions::show)).answers(200, "Decision"),
        route("get", "/api/audit", "decisions", "Every change, newest first.", get(audit::list)).answers(200, "AuditEntry[]").query(&["cursor", "limit"]),
        route("get", "/healthz", "health", "The process answers.", get(health::healthz)).answers(200, "Text").open(),
        route("get", "/readyz", "health", "Ledger and engine answer; 503 says what does not.", get(health::readyz)).answers(200, "Ready").also(&[503]).open(),
        route("get", "/metrics", "health", "Prometheus metrics.", get(metrics::metrics)).answers(200, "Text"),
        route("get", "/api/openapi.json", "health", "This document.", get(docs::openapi)).answers(200, "Document").open(),
        route("get", "/api/docs", "health", "This document, to read.", get(docs::page)).answers(200, "Text").open(),
        route("get", "/api/docs.css", "health", "The style of that page.", get(docs::style)).answers(200, "Text").open(),
    ]
}
