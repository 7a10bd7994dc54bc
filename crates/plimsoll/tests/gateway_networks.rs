//! Networks and ports, end to end: people with the ordinary docker CLI on one host, each as if alone.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use common::{IMAGE, Server, Tenant, engine, wait_for};
use serde_json::{Value, json};

fn limits() -> Value {
    json!({"maxMemoryGB": 1, "maxCpuCores": 4, "maxConcurrentContainers": 12})
}

/// A server whose tenants publish from `first` on, ten ports each.
fn server(first: u16, extra: &[&str]) -> Server {
    let first = format!("ports.first={first}");
    let mut flags = vec!["--set", &first, "--set", "ports.per_user=10"];
    flags.extend(extra);
    Server::start_with(&engine(), &flags)
}

fn two(server: &Server, base: u32) -> (Tenant, Tenant) {
    (
        server.tenant("ada", base, limits()),
        server.tenant("ben", base + 1, limits()),
    )
}

const SLEEP: [&str; 3] = [IMAGE, "sleep", "1000"];

/// `docker run -d` of something that sleeps.
fn asleep(tenant: &Tenant, name: &str, options: &[&str]) -> String {
    let mut args = vec!["run", "-d", "--name", name, "--memory", "32m"];
    args.extend(options);
    args.extend(SLEEP);
    tenant.ok(&args)
}

/// A web server that says `word`.
fn web<'a>(name: &'a str, options: &[&'a str], script: &'a str) -> Vec<&'a str> {
    let mut args = vec!["run", "-d", "--name", name, "--memory", "32m"];
    args.extend(options);
    args.extend([IMAGE, "sh", "-c", script]);
    args
}

fn saying(word: &str) -> String {
    format!("echo {word} > /index.html; exec httpd -f -p 80 -h /")
}

/// What a program in a container hears at an address.
fn heard(tenant: &Tenant, container: &str, host: &str, port: &str) -> String {
    let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {host} {port}");
    tenant.docker(&["exec", container, "sh", "-c", &script]).out
}

/// What the host hears on a port of its own.
fn published(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn address(tenant: &Tenant, container: &str) -> String {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    tenant.ok(&["inspect", "-f", format, container])
}

/// The host port behind a container's port.
fn port_of(tenant: &Tenant, container: &str, port: &str) -> u16 {
    let said = tenant.ok(&["port", container, port]);
    let line = said.lines().next().unwrap();
    line.rsplit(':').next().unwrap().parse().unwrap()
}

fn reaches(tenant: &Tenant, container: &str, host: &str) -> bool {
    let args = ["exec", container, "ping", "-c", "1", "-W", "2", host];
    tenant.docker(&args).code == 0
}

/// Nothing of the engine's names, of Plimsoll's labels, nor of anybody else.
#[track_caller]
fn shows_nothing_else(text: &str, others: &[&str]) {
    for word in [
        "ada.",
        "ben.",
        "plimsoll.user",
        "plimsoll.reservation",
        "plimsoll.ports",
    ] {
        assert!(!text.contains(word), "{word} in {text}");
    }
    for other in others {
        assert!(!text.contains(other), "{other} in {text}");
    }
}

#[test]
fn two_people_run_the_same_application_at_once() {
    let server = server(24_000, &[]);
    let (ada, ben) = two(&server, 63_000);
    let start = |tenant: &Tenant, word: &str| {
        tenant.ok(&["network", "create", "--label", "app=x", "app_default"]);
        let join = ["--network", "app_default", "--network-alias", "database"];
        asleep(tenant, "db", &join);
        let publish = ["--network", "app_default", "-p", "8080:80"];
        let said = tenant.docker(&web("web", &publish, &saying(word)));
        assert_eq!(said.code, 0, "{said:?}");
        said.err
    };
    let (told, _) = std::thread::scope(|s| {
        let one = s.spawn(|| start(&ada, "ada"));
        let two = s.spawn(|| start(&ben, "ben"));
        (one.join().unwrap(), two.join().unwrap())
    });
    assert!(
        told.contains("port 8080 is not yours: published on 24000"),
        "{told}"
    );

    // Each finds their own by the names of the file, and on a port of their own.
    for (tenant, word, port) in [(&ada, "ada", 24_000), (&ben, "ben", 24_010)] {
        for name in ["db", "database", "web"] {
            assert!(reaches(tenant, "web", name), "{word} {name}");
        }
        assert_eq!(port_of(tenant, "web", "80"), port);
        wait_for("the web server", || {
            published(port)?.contains(word).then_some(())
        });
        assert!(heard(tenant, "db", "web", "80").contains(word));
        let shown = tenant.ok(&["ps", "--format", "{{.Names}} {{.Ports}} {{.Networks}}"]);
        assert!(
            shown.contains(&format!("web 0.0.0.0:{port}->80/tcp")),
            "{shown}"
        );
        assert!(shown.contains("app_default"), "{shown}");
    }

    // Nobody sees or touches another's.
    let id = ada.ok(&["network", "inspect", "-f", "{{.Id}}", "app_default"]);
    let web_id = server.full_id("ada", "web");
    for (text, names) in [
        (ben.ok(&["network", "ls", "--no-trunc"]), "app_default"),
        (ben.ok(&["network", "inspect", "app_default"]), "\"web\""),
        (ben.ok(&["inspect", "web"]), "app_default"),
        (ben.ok(&["ps", "--no-trunc"]), "web"),
    ] {
        assert!(text.contains(names), "{text}");
        shows_nothing_else(&text, &[&id, &web_id]);
    }
    for args in [
        vec!["network", "inspect", &id],
        vec!["network", "rm", &id],
        vec!["network", "connect", &id, "web"],
        vec!["network", "connect", "app_default", &web_id],
        vec!["network", "disconnect", "app_default", &web_id],
        vec!["run", "--rm", "--network", &id, IMAGE, "true"],
        vec!["run", "--rm", "--network", &id[..12], IMAGE, "true"],
    ] {
        let said = ben.refused(&args).to_lowercase();
        assert!(
            said.contains("not found") || said.contains("no such"),
            "{args:?}: {said}"
        );
    }

    // Not by address, but by what is published.
    let hers = address(&ada, "web");
    assert!(heard(&ada, "db", &hers, "80").contains("ada"));
    assert_eq!(heard(&ben, "db", &hers, "80"), "");
    assert!(!reaches(&ben, "db", &hers));
    let gateway = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
    let seen = ben.ok(&["network", "inspect", "-f", gateway, "app_default"]);
    let gateway = if seen.is_empty() {
        let format = "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}";
        ben.ok(&["inspect", "-f", format, "db"])
    } else {
        seen
    };
    assert!(heard(&ben, "db", &gateway, "24000").contains("ada"));
}

#[test]
fn a_plain_run_has_a_bridge_of_its_owners() {
    let server = server(24_040, &[]);
    let (ada, ben) = two(&server, 63_010);
    // At once, and still one network.
    std::thread::scope(|s| {
        for name in ["one", "two"] {
            let ada = &ada;
            s.spawn(move || asleep(ada, name, &[]));
        }
    });
    asleep(&ben, "one", &["--network", "bridge"]);
    assert!(reaches(&ada, "one", "two"));
    assert!(!reaches(&ben, "one", &address(&ada, "two")));
    assert!(!reaches(&ben, "one", "two"));
    let format =
        "{{.HostConfig.NetworkMode}} {{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{end}}";
    assert_eq!(ada.ok(&["inspect", "-f", format, "one"]), "bridge bridge");
    assert_eq!(
        ada.ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]),
        "bridge bridge"
    );
    let listed = ada.ok(&["ps", "-q", "--filter", "network=bridge"]);
    assert_eq!(listed.lines().count(), 2);
    assert_eq!(ada.ok(&["ps", "-q", "--filter", "network=other"]), "");
    let inside = ada.ok(&["network", "inspect", "bridge"]);
    assert!(
        inside.contains("\"one\"") && inside.contains("\"two\""),
        "{inside}"
    );
    shows_nothing_else(&inside, &[]);
    // Nobody is on the bridge that everybody would share.
    let shared = server.docker(&["network", "inspect", "bridge"]).stdout;
    let shared = String::from_utf8(shared).unwrap();
    assert!(!shared.contains(&server.full_id("ada", "one")), "{shared}");
    assert!(
        ada.refused(&["network", "rm", "bridge"])
            .contains("pre-defined")
    );

    // By link, in another's network, in none.
    asleep(&ada, "linked", &["--link", "one:first"]);
    assert!(reaches(&ada, "linked", "first"));
    asleep(&ada, "beside", &["--network", "container:one"]);
    let inside = ada.ok(&["exec", "beside", "ip", "-4", "addr"]);
    assert!(inside.contains(&address(&ada, "one")), "{inside}");
    asleep(&ada, "alone", &["--network", "none"]);
    assert!(!reaches(&ada, "alone", &address(&ada, "one")));
    let hers = server.full_id("ada", "one");
    for option in [
        format!("--network=container:{hers}"),
        "--network=container:two".to_owned(),
        "--link=two:x".to_owned(),
        format!("--link={hers}:x"),
    ] {
        let said = ben.refused(&["create", &option, IMAGE, "true"]);
        assert!(said.contains("no container of yours"), "{option}: {said}");
    }
}

#[test]
fn networks_are_made_joined_left_and_removed() {
    let server = server(24_080, &["--set", "networks.per_user_max=2"]);
    let (ada, _) = two(&server, 63_020);
    let mut events = ada.command(&[
        "events",
        "--since",
        "1m",
        "--filter",
        "type=network",
        "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ]);
    let mut following = events.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let id = ada.ok(&[
        "network",
        "create",
        "--internal",
        "--label",
        "tier=1",
        "back",
    ]);
    assert!(
        ada.refused(&["network", "create", "back"])
            .contains("network with name back already exists")
    );
    ada.ok(&[
        "network",
        "create",
        "-o",
        "com.docker.network.driver.mtu=1400",
        "front",
    ]);
    let said = ada.refused(&["network", "create", "third"]);
    assert!(
        said.contains("you have 2 networks, and 2 is the most here"),
        "{said}"
    );

    asleep(&ada, "web", &["--network", "front"]);
    asleep(&ada, "db", &["--network", "back"]);
    assert!(!reaches(&ada, "web", "db"));
    ada.ok(&["network", "connect", "--alias", "www", "back", "web"]);
    assert!(reaches(&ada, "db", "web") && reaches(&ada, "db", "www") && reaches(&ada, "web", "db"));
    let said = ada.refused(&["network", "rm", "back"]);
    assert!(
        said.contains("network back") && said.contains("active endpoints"),
        "{said}"
    );
    shows_nothing_else(&said, &[]);
    ada.ok(&["network", "disconnect", "back", "web"]);
    assert!(!reaches(&ada, "db", "web"));
    let subnet = ada.ok(&[
        "network",
        "inspect",
        "-f",
        "{{(index .IPAM.Config 0).Subnet}}",
        "back",
    ]);
    let fixed = subnet
        .replace("0/26", "9")
        .replace("64/26", "73")
        .replace("128/26", "137")
        .replace("192/26", "201");
    ada.ok(&["network", "connect", "--ip", &fixed, "back", "web"]);
    assert!(reaches(&ada, "db", &fixed));
    let said = ada.refused(&["network", "connect", "--ip", "10.0.0.9", "front", "db"]);
    assert!(
        said.contains("is not an address for a container in this network"),
        "{said}"
    );

    for (filter, names) in [
        ("name=bac", "back"),
        ("name=^front$", "front"),
        (&format!("id={}", &id[..20]), "back"),
        ("label=tier=1", "back"),
        ("type=custom", "back front"),
        ("name=none", ""),
    ] {
        let listed = ada.ok(&["network", "ls", "--filter", filter, "--format", "{{.Name}}"]);
        let mut listed: Vec<&str> = listed.split_whitespace().collect();
        listed.sort_unstable();
        assert_eq!(listed.join(" "), names, "{filter}");
    }
    ada.ok(&["rm", "-f", "web", "db"]);
    asleep(&ada, "stays", &["--network", "front"]);
    let pruned = ada.ok(&["network", "prune", "-f"]);
    assert_eq!(
        pruned.lines().collect::<Vec<_>>(),
        ["Deleted Networks:", "back"]
    );
    ada.ok(&["rm", "-f", "stays"]);
    ada.ok(&["network", "rm", "front"]);
    assert_eq!(
        ada.ok(&["network", "ls", "-q", "--filter", "type=custom"]),
        ""
    );

    let mut seen = String::new();
    let mut out = following.stdout.take().unwrap();
    while !seen.ends_with("destroy front\n") {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "{seen}");
        seen.push(char::from(byte[0]));
    }
    following.kill().unwrap();
    following.wait().unwrap();
    for event in [
        "create back",
        "connect back",
        "disconnect back",
        "destroy back",
    ] {
        assert!(seen.lines().any(|line| line == event), "{event} in {seen}");
    }
    shows_nothing_else(&seen, &[]);
}

#[test]
fn what_no_tenant_may_ask_of_a_network_is_refused_in_words() {
    let server = server(24_120, &[]);
    let (ada, _) = two(&server, 63_030);
    for (options, says) in [
        (
            vec!["--driver=macvlan"],
            "other drivers reach the host's own network",
        ),
        (vec!["--driver=host"], "other drivers"),
        (vec!["--ipv6"], "are IPv4"),
        (
            vec!["--subnet=10.9.0.0/24"],
            "subnets are given by this host",
        ),
        (vec!["--ingress"], "administrator"),
        (vec!["--config-only"], "administrator"),
        (
            vec!["--config-from=x"],
            "copies another network's configuration",
        ),
        (vec!["--scope=swarm"], "on this host alone"),
        (
            vec!["--ipam-driver=dhcp"],
            "addresses are given by this host",
        ),
        (
            vec!["-o", "com.docker.network.bridge.name=docker0"],
            "these can be set",
        ),
        (
            vec!["-o", "com.docker.network.driver.mtu=99999"],
            "is not a value",
        ),
    ] {
        let mut args = vec!["network", "create"];
        args.extend(options);
        args.push("x");
        let said = ada.refused(&args);
        assert!(
            said.contains("plimsoll: ") && said.contains(says),
            "{args:?}: {said}"
        );
    }
    for name in ["bridge", "host", "none", "default", "a/b", "deadbeefcafe"] {
        assert!(
            ada.refused(&["network", "create", name])
                .contains("plimsoll: "),
            "{name}"
        );
    }
    ada.ok(&["network", "create", "back"]);
    for (options, says) in [
        (vec!["--network=host"], "publish ports with -p"),
        (vec!["--network=nothing"], "network nothing not found"),
        (vec!["--network=back", "--ip=10.9.9.9"], "is not an address"),
        (vec!["--network=back", "--ip6=fd00::1"], "are IPv4"),
        (
            vec!["--network=name=back,driver-opt=a=b"],
            "options of the driver",
        ),
        (vec!["--network=container:nobody"], "no container of yours"),
        (vec!["-p", "192.0.2.1:8080:80"], "administrator's to give"),
    ] {
        let mut args = vec!["create"];
        args.extend(options);
        args.extend([IMAGE, "true"]);
        let said = ada.refused(&args);
        assert!(
            said.contains("plimsoll: ") && said.contains(says),
            "{args:?}: {said}"
        );
        assert!(!said.contains("Unable to find image"), "{args:?}: {said}");
    }
    assert_eq!(server.usage("ada")["reservedContainers"], 0);
}

#[test]
fn ports_come_from_ones_own_span_and_a_clash_says_with_what() {
    let server = server(24_160, &[]);
    let (ada, _) = two(&server, 63_040);
    // The first that would do is a program's of the host.
    let program = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 24_160)).unwrap();
    asleep(&ada, "any", &["-p", "80"]);
    let any = port_of(&ada, "any", "80");
    assert!((24_161..24_170).contains(&any), "{any}");
    drop(program);
    asleep(&ada, "all", &["-P", "--expose", "80", "--expose", "81/udp"]);
    let (one, other) = (port_of(&ada, "all", "80"), port_of(&ada, "all", "81/udp"));
    assert!((24_160..24_170).contains(&one) && one != any && one != other && other != any);
    asleep(&ada, "mine", &["-p", "127.0.0.1:24169:80"]);
    assert_eq!(ada.ok(&["port", "mine"]), "80/tcp -> 127.0.0.1:24169");

    // The same port asked for twice is one port, as on a host of one's own.
    asleep(&ada, "web", &["-p", "8085:80"]);
    let port = port_of(&ada, "web", "80");
    ada.ok(&[
        "create", "--name", "next", "-p", "8085:80", IMAGE, "sleep", "1000",
    ]);
    let said = ada.refused(&["start", "next"]);
    let held = format!("port {port} is held by your container `web`");
    assert!(said.contains(&held), "{said}");
    ada.ok(&["stop", "-t", "0", "web"]);
    ada.ok(&["start", "next"]);
    assert_eq!(port_of(&ada, "next", "80"), port);

    // A port that something else has.
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 24_168)).unwrap();
    ada.ok(&[
        "create", "--name", "late", "-p", "24168:80", IMAGE, "sleep", "1000",
    ]);
    let said = ada.refused(&["start", "late"]);
    assert!(
        said.contains("port 24168 is taken by a program on this host"),
        "{said}"
    );
    assert!(said.contains("24160 to 24169"), "{said}");
    drop(taken);
    ada.ok(&["start", "late"]);

    // Ten are ten.
    let said = ada.refused(&[
        "create", "-p", "1", "-p", "2", "-p", "3", "-p", "4", "-p", "5", IMAGE, "true",
    ]);
    assert!(
        said.contains("every port of yours that would do is taken"),
        "{said}"
    );
    ada.ok(&["rm", "-f", "any", "all", "mine", "web", "next", "late"]);
    ada.ok(&[
        "create", "-p", "1", "-p", "2", "-p", "3", "-p", "4", "-p", "5", IMAGE, "true",
    ]);
}

#[test]
fn a_host_may_refuse_ports_outside_the_span() {
    let flags = ["--set", "ports.outside=refuse", "--set", "ports.last=24209"];
    let server = server(24_200, &flags);
    let (ada, ben) = two(&server, 63_050);
    let said = ada.refused(&["create", "-p", "8080:80", IMAGE, "true"]);
    assert!(said.contains("your ports are 24200 to 24209"), "{said}");
    ada.ok(&["create", "-p", "24205:80", IMAGE, "true"]);
    ada.ok(&["create", "-p", "80", IMAGE, "true"]);
    let said = ben.refused(&["create", "-p", "80", IMAGE, "true"]);
    assert!(
        said.contains("no ports of this host are left for you"),
        "{said}"
    );
}

/// Runs SQL on a ledger whose server is down.
fn rewrite(server: &Server, sql: &str) {
    let script =
        "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1])\nc.execute(sys.argv[2])\nc.commit()";
    let done = Command::new("python3")
        .args(["-c", script])
        .arg(server.path("data/ledger.db"))
        .arg(sql)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn a_network_whose_commit_was_lost_is_found_again() {
    let mut server = server(24_240, &["--set", "reconcile.interval_s=0.5"]);
    let (ada, _) = two(&server, 63_060);
    let back = ada.ok(&["network", "create", "back"]);
    asleep(&ada, "web", &[]);
    let bridge = ada.ok(&["network", "inspect", "-f", "{{.Id}}", "bridge"]);
    let never = ada.ok(&["network", "create", "never"]);
    server.crash();
    // As the ledger is between the engine's answer and the commit; one never came to be.
    rewrite(
        &server,
        "UPDATE reservation SET state = 'pending', container_id = NULL, expires_at = changed_at
         WHERE kind = 'network'",
    );
    server.docker(&["network", "rm", &never]);
    server.restart();
    // Whoever needs one does not wait for the reconciler.
    asleep(&ada, "again", &[]);
    assert!(reaches(&ada, "again", "web"));
    wait_for("the networks to be bound again", || {
        let listed = ada.ok(&[
            "network",
            "ls",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.Name}}",
        ]);
        let mut listed: Vec<&str> = listed.lines().collect();
        listed.sort_unstable();
        let mut all = [format!("{back} back"), format!("{bridge} bridge")];
        all.sort_unstable();
        (listed == all).then_some(())
    });
    ada.ok(&["network", "create", "never"]);
}

#[test]
fn what_is_removed_past_the_gateway_is_gone_and_made_anew() {
    let server = server(24_280, &["--set", "reconcile.interval_s=0.5"]);
    let (ada, ben) = two(&server, 63_070);
    let back = ada.ok(&["network", "create", "back"]);
    asleep(&ada, "web", &[]);
    ada.ok(&["rm", "-f", "web"]);
    let bridge = ada.ok(&["network", "inspect", "-f", "{{.Id}}", "bridge"]);
    server.docker(&["network", "rm", &back, &bridge]);
    asleep(&ada, "web", &[]);
    ada.ok(&["network", "create", "back"]);
    // As an administrator's `docker network prune` does: what is stopped starts again all the same.
    ada.ok(&["stop", "-t", "0", "web"]);
    let bridge = ada.ok(&["network", "inspect", "-f", "{{.Id}}", "bridge"]);
    server.docker(&["network", "rm", &bridge]);
    ada.ok(&["start", "web"]);
    assert!(reaches(&ada, "web", "web"));
    ada.ok(&["rm", "-f", "web"]);

    // Networks are not in the way of their owner's end, nor outlive it.
    asleep(&ben, "web", &[]);
    ben.ok(&["network", "create", "back"]);
    let label = format!("label=plimsoll.instance={}", server.instance());
    let left = || {
        let listed = server.docker(&["network", "ls", "-q", "--filter", &label]);
        String::from_utf8(listed.stdout).unwrap().lines().count()
    };
    assert_eq!(left(), 4);
    assert_eq!(server.api("DELETE", "/api/users/ada", None).0, 204);
    assert_eq!(left(), 2);
    assert_eq!(server.api("DELETE", "/api/users/ben", None).0, 409);
    assert_eq!(
        server.api("DELETE", "/api/users/ben?drain=true", None).0,
        202
    );
    let id = server.full_id("ben", "web");
    server.docker(&["rm", "-f", &id]);
    wait_for("the last network to go with its owner", || {
        (server.api("GET", "/api/users/ben", None).0 == 404 && left() == 0).then_some(())
    });
    // Their span of ports is free for the next.
    let eve = server.tenant("eve", 63_079, limits());
    asleep(&eve, "web", &["-p", "8080:80"]);
    assert_eq!(port_of(&eve, "web", "80"), 24_280);
}

#[test]
fn several_networks_in_one_create_are_joined_or_nothing_is_made() {
    let server = Server::start_with(&common::engine(), &["--set", "ports.first=25500"]);
    let limits = json!({"maxMemoryGB": 1, "maxCpuCores": 1, "maxContainers": 4});
    let ada = server.tenant("ada", 66_200, limits.clone());
    let ben = server.tenant("ben", 66_201, limits);
    for network in ["back", "front"] {
        ada.ok(&["network", "create", network]);
    }
    ben.ok(&["network", "create", "bens"]);
    let create = |name: &str, mode: &str, endpoints: Value| {
        let body = json!({"Image": IMAGE, "Cmd": ["sleep", "1000"],
                          "HostConfig": {"Memory": 33_554_432, "NetworkMode": mode},
                          "NetworkingConfig": {"EndpointsConfig": endpoints}});
        let body = body.to_string();
        let request = format!(
            "POST /v1.44/containers/create?name={name} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        common::as_uid_raw(ada.uid, &server.path("docker.sock"), request.as_bytes())
    };
    let made = create(
        "web",
        "front",
        json!({"front": {}, "back": {"Aliases": ["db"]}, "bridge": null}),
    );
    assert_eq!(made.0, 201, "{}", made.1);
    ada.ok(&["start", "web"]);
    let joined = "{{range $n, $_ := .NetworkSettings.Networks}}{{$n}} {{end}}";
    assert_eq!(
        ada.ok(&["inspect", "-f", joined, "web"]),
        "back bridge front"
    );
    let ask = [
        "run",
        "--rm",
        "--memory",
        "32m",
        "--network",
        "back",
        IMAGE,
        "ping",
        "-c1",
        "db",
    ];
    ada.ok(&ask);

    let address = |address: &str| json!({"IPAMConfig": {"IPv4Address": address}});
    for (status, mode, endpoints) in [
        (400, "front", json!({"front": {}, "bens": {}})),
        (400, "front", json!({"front": {}, "absent": {}})),
        (
            400,
            "front",
            json!({"front": {}, "back": address("192.0.2.1")}),
        ),
        (400, "front", json!({"back": {}, "bridge": {}})),
        (403, "front", json!({"front": {}, "host": {}})),
        (
            403,
            "front",
            json!({"front": {}, "back": {"DriverOpts": {"a": "b"}}}),
        ),
    ] {
        let made = create("more", mode, endpoints.clone());
        assert_eq!(made.0, status, "{endpoints}: {}", made.1);
    }
    let taken = "{{.NetworkSettings.Networks.back.IPAddress}}";
    let taken = ada.ok(&["inspect", "-f", taken, "web"]);
    let id = ada.ok(&["network", "inspect", "-f", "{{.Id}}", "back"]);
    let twice = create("more", "back", json!({"back": {}, &id: {}}));
    assert_eq!(twice.0, 400, "{}", twice.1);
    let made = create(
        "more",
        "front",
        json!({"front": {}, "back": address(&taken)}),
    );
    // The engine looks at an address when the container starts.
    assert_eq!(made.0, 201, "{}", made.1);
    let refusal = ada.refused(&["start", "more"]);
    assert!(refusal.contains("in use"), "{refusal}");
    ada.ok(&["rm", "more"]);
    assert_eq!(ada.ok(&["ps", "-a", "--format", "{{.Names}}"]), "web");
    assert_eq!(server.usage("ada")["reservedContainers"], 1);
}
