//! `POST /build` for the classic builder: the query, judged.
//!
//! Where it runs and with what is the caller's to decide; what is read here is what a tenant may choose.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::archive::inner_path;
use super::image_reference::Reference;
use super::json::{Fields, Json, decode, fold, short};
use super::query::Query;
use super::refusal::{BadRequest, Refusal};

/// The most names for one image.
const NAMES_MAX: usize = 32;

/// The engine's own bound on shared memory where none is given.
const SHM_DEFAULT: i64 = 64 << 20;

/// What a tenant asks to be built.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildRequest {
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// Names for the result.
    pub names: Vec<Reference>,
    /// Values for `ARG`; `None` takes one away.
    pub arguments: BTreeMap<String, Option<String>>,
    /// Labels for the result, without reserved ones.
    pub labels: BTreeMap<String, String>,
    /// The stage to stop at.
    pub target: Option<String>,
    /// Use nothing that was built before.
    pub no_cache: bool,
    /// Ask the registries for newer bases.
    pub pull: bool,
    /// Say nothing but the result.
    pub quiet: bool,
    /// `none` or `default`.
    pub network: &'static str,
    /// Further lines of `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// Images whose steps may be used again, as the tenant names them.
    pub cache_from: Vec<String>,
    /// Memory in bytes, where asked for.
    pub memory: Option<u64>,
    /// CPU in thousandths of a core, where asked for.
    pub cpu_milli: Option<u64>,
}

/// What BuildKit is answered with.
#[must_use]
pub fn buildkit(asked: &str) -> Refusal {
    Refusal::policy(
        "query",
        asked,
        "BuildKit would build outside your quota",
        "set DOCKER_BUILDKIT=0 (for Compose COMPOSE_DOCKER_CLI_BUILD=0, too) to build with the classic builder",
    )
}

impl BuildRequest {
    /// Takes a query apart.
    ///
    /// # Errors
    /// [`Refusal`] for what is malformed, unknown, or not a tenant's to ask.
    pub fn parse(mut query: Query) -> Result<Self, Refusal> {
        let bad = |name: &str, reason: &str| {
            Refusal::BadRequest(BadRequest::new(format!("query {name}"), reason))
        };
        if query.str("version").is_some_and(|v| v != "1") || query.str("session").is_some() {
            return Err(buildkit("building with BuildKit"));
        }
        if query
            .str("outputs")
            .is_some_and(|o| !matches!(o.as_str(), "null" | "[]"))
        {
            return Err(buildkit("--output"));
        }
        query.str("buildid");
        if query.str("remote").is_some() {
            return Err(Refusal::policy(
                "query remote",
                "building from a URL",
                "the host fetches nothing for a build",
                "fetch it and build from the folder",
            ));
        }
        if query.bool("squash")? {
            return Err(Refusal::policy(
                "query squash",
                "--squash",
                "it is an experiment of the engine's",
                "leave it out",
            ));
        }
        if query.str("platform").is_some() {
            return Err(Refusal::policy(
                "query platform",
                "--platform",
                "images are built for this host",
                "leave it out",
            ));
        }
        for (name, option) in [
            ("cpusetcpus", "--cpuset-cpus"),
            ("cpusetmems", "--cpuset-mems"),
            ("cgroupparent", "--cgroup-parent"),
            ("isolation", "--isolation"),
        ] {
            if query.str(name).is_some() {
                let field = format!("query {name}");
                return Err(Refusal::policy(
                    field,
                    option,
                    "a build runs where its owner's quota holds",
                    "leave it out",
                ));
            }
        }
        if query
            .str("ulimits")
            .is_some_and(|u| !matches!(u.as_str(), "null" | "[]"))
        {
            return Err(Refusal::policy(
                "query ulimits",
                "--ulimit",
                "a build has the host's",
                "leave it out",
            ));
        }
        if query
            .str("securityopt")
            .is_some_and(|u| !matches!(u.as_str(), "null" | "[]"))
        {
            return Err(Refusal::policy(
                "query securityopt",
                "--security-opt",
                "isolation is the host's",
                "leave it out",
            ));
        }
        if query
            .i64("shmsize")?
            .is_some_and(|n| n != 0 && n != SHM_DEFAULT)
        {
            return Err(Refusal::policy(
                "query shmsize",
                "--shm-size",
                "a build has 64 MiB",
                "leave it out",
            ));
        }
        // Relative weight, and how long that of the quota's period is: ours.
        query.i64("cpushares")?;
        query.i64("memswap")?;
        query.bool("rm")?;
        query.bool("forcerm")?;
        let network = match query.str("networkmode").as_deref() {
            None | Some("default" | "bridge") => "default",
            Some("none") => "none",
            Some(other) => {
                return Err(Refusal::policy(
                    "query networkmode",
                    format!("--network {}", short(other)),
                    "a build has the default network or none",
                    "leave it out",
                ));
            }
        };
        let positive = |name: &str, value: Option<i64>| match value {
            None | Some(0) => Ok(None),
            Some(n) => u64::try_from(n)
                .map(Some)
                .map_err(|_| bad(name, "must not be negative")),
        };
        let memory = positive("memory", query.i64("memory")?)?;
        let quota = positive("cpuquota", query.i64("cpuquota")?)?;
        let period = positive("cpuperiod", query.i64("cpuperiod")?)?.unwrap_or(100_000);
        let cpu_milli = quota
            .map(|quota| quota.checked_mul(1000).map(|n| n.div_ceil(period)))
            .map(|milli| milli.ok_or_else(|| bad("cpuquota", "is too large")))
            .transpose()?;

        let names = query.all("t");
        if names.len() > NAMES_MAX {
            return Err(bad("t", &format!("is given more than {NAMES_MAX} times")));
        }
        let names = names.iter().map(|name| {
            let reference = Reference::parse(name)?;
            match reference.tag() {
                Some(_) => Ok(reference),
                None => Err(bad("t", "an image cannot be given a digest")),
            }
        });
        let names = names.collect::<Result<_, Refusal>>()?;
        // docker-py sends the text of a Dockerfile from elsewhere along, second; the engine looks at the first.
        let dockerfile = query.all("dockerfile").into_iter().next();
        let dockerfile = dockerfile.unwrap_or_else(|| "Dockerfile".to_owned());
        let dockerfile =
            inner_path(dockerfile.as_bytes()).map_err(|e| bad("dockerfile", &e.to_string()))?;
        let mut labels = texts(&mut query, "labels")?;
        labels.retain(|key, _| !fold(key).starts_with("plimsoll."));
        let labels = labels
            .into_iter()
            .map(|(k, v)| (k, v.unwrap_or_default()))
            .collect();
        let arguments = texts(&mut query, "buildargs")?;
        let extra_hosts = query.all("extrahosts");
        let host = |entry: &String| {
            let (name, ip) = entry.split_once(':').unwrap_or((entry, ""));
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            !name.is_empty() && name.bytes().all(plain) && ip.parse::<IpAddr>().is_ok()
        };
        if !extra_hosts.iter().all(host) {
            return Err(bad("extrahosts", "must be names with addresses"));
        }
        let request = Self {
            dockerfile,
            names,
            arguments,
            labels,
            target: query.str("target").map(|t| t.to_ascii_lowercase()),
            no_cache: query.bool("nocache")?,
            pull: query.opt_bool("pull")?.unwrap_or(false),
            quiet: query.bool("q")?,
            network,
            extra_hosts,
            cache_from: list(&mut query, "cachefrom")?,
            memory,
            cpu_milli,
        };
        query.finish()?;
        Ok(request)
    }
}

fn json(query: &mut Query, name: &str) -> Result<Option<Json>, Refusal> {
    let Some(text) = query.str(name) else {
        return Ok(None);
    };
    let wrong = |e: BadRequest| BadRequest::new(format!("query {name}"), e.reason);
    Ok(Some(decode(text.as_bytes()).map_err(wrong)?))
}

fn list(query: &mut Query, name: &'static str) -> Result<Vec<String>, Refusal> {
    let Some(json) = json(query, name)? else {
        return Ok(Vec::new());
    };
    let mut fields = Fields::new(
        "query".to_owned(),
        BTreeMap::from([(name.to_owned(), json)]),
    );
    Ok(fields.strings(name)?.unwrap_or_default())
}

fn texts(query: &mut Query, name: &str) -> Result<BTreeMap<String, Option<String>>, Refusal> {
    let bad = |reason: &str| Refusal::BadRequest(BadRequest::new(format!("query {name}"), reason));
    match json(query, name)? {
        None | Some(Json::Null) => Ok(BTreeMap::new()),
        Some(Json::Object(map)) => map
            .into_iter()
            .map(|(key, value)| match value {
                _ if key.contains('\0') => Err(bad("must not hold NUL bytes")),
                Json::Null => Ok((key, None)),
                Json::Str(text) if !text.contains('\0') => Ok((key, Some(text))),
                _ => Err(bad("must map texts to texts")),
            })
            .collect(),
        Some(_) => Err(bad("must be a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Result<BuildRequest, Refusal> {
        BuildRequest::parse(Query::parse(query).unwrap())
    }

    #[test]
    fn what_the_cli_sends_is_read() {
        let request = parsed(
            "buildargs=%7B%22A%22%3A%22b%22%2C%22N%22%3Anull%7D&cachefrom=%5B%5D&cgroupparent=&cpuperiod=0&\
             cpuquota=0&cpusetcpus=&cpusetmems=&cpushares=0&dockerfile=./sub//Dockerfile&\
             labels=%7B%22l%22%3A%22v%22%2C%22Plimsoll.user%22%3A%22x%22%7D&memory=67108864&memswap=0&\
             networkmode=default&rm=1&shmsize=0&t=a%3A1&t=b&target=Final&ulimits=null&version=1",
        )
        .unwrap();
        assert_eq!(request.dockerfile, "sub/Dockerfile");
        assert_eq!(
            request
                .names
                .iter()
                .map(Reference::short)
                .collect::<Vec<_>>(),
            ["a:1", "b:latest"]
        );
        assert_eq!(request.arguments.len(), 2);
        assert_eq!(
            request.labels,
            BTreeMap::from([("l".to_owned(), "v".to_owned())])
        );
        assert_eq!(
            (request.memory, request.cpu_milli, request.network),
            (Some(64 << 20), None, "default")
        );
        assert_eq!(request.target.as_deref(), Some("final"));
        assert_eq!(parsed("cpuquota=50000").unwrap().cpu_milli, Some(500));
        assert_eq!(parsed("").unwrap().dockerfile, "Dockerfile");
        let twice = parsed("dockerfile=.dockerfile.a0&dockerfile=FROM+x%0ACOPY+.+/y").unwrap();
        assert_eq!(twice.dockerfile, ".dockerfile.a0");
        let hosts = parsed("extrahosts=a%3A1.2.3.4&extrahosts=b%3A::1").unwrap();
        assert_eq!(hosts.extra_hosts, ["a:1.2.3.4", "b:::1"]);
    }

    #[test]
    fn what_is_not_a_tenants_to_ask_is_refused() {
        for (query, status) in [
            ("version=2", 403),
            ("session=x", 403),
            ("outputs=%5B%7B%7D%5D", 403),
            ("remote=http://x/y.git", 403),
            ("squash=1", 403),
            ("platform=linux/arm64", 403),
            ("networkmode=host", 403),
            ("networkmode=container:x", 403),
            ("cgroupparent=/x", 403),
            ("cpusetcpus=0", 403),
            ("securityopt=%5B%22seccomp%3Dunconfined%22%5D", 403),
            ("ulimits=%5B%7B%7D%5D", 403),
            ("shmsize=1073741824", 403),
            ("memory=-1", 400),
            ("cpuquota=9223372036854775807", 400),
            ("dockerfile=../x", 400),
            ("t=plimsoll.invalid/x/u0/docker.io/library/y:1", 400),
            ("t=a@sha256:0", 400),
            ("buildargs=%5B%5D", 400),
            ("labels=%7B%22a%22%3A1%7D", 400),
            ("extrahosts=a%3Ahost-gateway", 400),
            ("extrahosts=a%3A1.2.3.4&extrahosts=b", 400),
            ("extrahosts=%5B%22a%3A1.2.3.4%22%5D", 400),
            ("evil=1", 400),
        ] {
            assert_eq!(
                parsed(query).map_err(|r| r.status()).unwrap_err(),
                status,
                "{query}"
            );
        }
    }
}
