//! The command tree, as clap reads it. Nothing is done here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::alerts::{AlertCommand, NotifyCommand};
use super::ladder::Ladder;
use super::limits::{AllotmentFlags, BorrowFlags, LimitFlags, RequestFlags};
use super::when::When;

/// Quotas and usage monitoring for shared Docker hosts.
///
/// As root on the host, commands need no token: they reach the server over its unix socket. From
/// elsewhere, name it with --url and a token.
#[derive(Debug, Parser)]
#[command(
    name = "plimsoll",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = EXIT_CODES
)]
pub(super) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(super) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What the exit codes mean, as `--help` shows it.
pub(super) const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong command line or value, 3 refused \
or not allowed,\n4 not found, 5 the server cannot be reached";

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Print the API's JSON instead of a table.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The configuration [default: /etc/plimsoll/plimsoll.toml].
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "PLIMSOLL_CONFIG",
        hide_env_values = true
    )]
    pub(super) config: Option<PathBuf>,
    /// The server's unix socket [default: as configured].
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "PLIMSOLL_API_SOCKET",
        hide_env_values = true
    )]
    pub(super) api_socket: Option<PathBuf>,
    /// The server over the network, like http://127.0.0.1:7180; needs a token.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "PLIMSOLL_URL",
        hide_env_values = true
    )]
    pub(super) url: Option<String>,
    /// The token. Other users of this machine can see it in the process list: prefer --token-file
    /// or the variable.
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "PLIMSOLL_TOKEN",
        hide_env_values = true
    )]
    pub(super) token: Option<String>,
    /// A file that holds the token.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "PLIMSOLL_TOKEN_FILE",
        hide_env_values = true
    )]
    pub(super) token_file: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server: API, gateway and background tasks.
    Serve(ServeFlags),
    /// Put Plimsoll in place on this host: binary, units, configuration, docker plugin.
    Install(InstallFlags),
    /// Remove what install made; the data stays.
    Uninstall(UninstallFlags),
    /// Say what this host supports, what is missing, who walks past Plimsoll, and the fixes.
    Doctor(DoctorFlags),
    /// Add, show, change and remove users.
    #[command(subcommand)]
    User(UserCommand),
    /// Make the certificate authority of the gateway over TLS, and show it.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Add, show and remove teams and their members.
    #[command(subcommand)]
    Team(TeamCommand),
    /// Add, list and delete projects.
    #[command(subcommand)]
    Project(ProjectCommand),
    /// Keep images of the host's from tenants, or give them to everybody.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Make, list and revoke API tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show and change quotas.
    #[command(subcommand)]
    Quota(QuotaCommand),
    /// Show what is used and reserved beside the limits.
    Usage(Who),
    /// Plot what was used over time.
    History(HistoryFlags),
    /// Say what a recorded series will be, with how sure that is.
    Forecast(ForecastFlags),
    /// Say when a recorded series reaches a limit, and how likely that is.
    Exhaustion(ExhaustionFlags),
    /// List what was odd in a recorded series.
    Spikes(SpikesFlags),
    /// Say what a container should be given that used this.
    Rightsize(RecordedFlags),
    /// Watch what is used, as it changes.
    Top(TopFlags),
    /// Write what was measured to a table for other programs.
    Export(ExportFlags),
    /// List containers with what they reserve and use.
    Ps(PsFlags),
    /// Ask whether something would fit, without charging it.
    Validate(ValidateFlags),
    /// List admissions, newest first.
    Decisions(DecisionsFlags),
    /// Explain the last refusal.
    Why {
        /// Whose; yours unless named.
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Explain one decision.
    Explain {
        /// Its id, as in a refusal and in `plimsoll decisions`.
        decision: String,
    },
    /// Show limits that are exceeded, or were.
    Violations(ViolationsFlags),
    /// Take the next step of the ladder now, wherever a limit is exceeded.
    Enforce(EnforceFlags),
    /// Look at limits that only watch.
    #[command(subcommand)]
    Shadow(ShadowCommand),
    /// Show what you were told and have not read.
    Inbox(InboxFlags),
    /// Show what fires, and choose what is watched and what is silent.
    #[command(subcommand)]
    Alert(AlertCommand),
    /// Try the ways to people, and see what became of messages.
    #[command(subcommand)]
    Notify(NotifyCommand),
    /// Copy the ledger, the totals and the history into a folder; the server may run.
    Backup {
        /// The folder, without copies in it.
        dir: PathBuf,
        /// The server's data directory [default: as configured].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Put copies made by backup back; the server must not run.
    Restore {
        /// The folder that was given to backup.
        dir: PathBuf,
        /// The server's data directory [default: as configured].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Work on kernel caps.
    #[command(subcommand)]
    Caps(CapsCommand),
    /// Mount folders of the host for the engine; the server runs this by itself.
    #[command(hide = true)]
    Folders,
    /// Print a shell's completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one per command into a folder.
    Man {
        /// The folder, which must exist.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the versions of this program and of the server.
    Version,
}

/// Flags of `inbox`.
#[derive(Debug, Args)]
pub(super) struct InboxFlags {
    /// What was read, too.
    #[arg(long)]
    pub(super) all: bool,
    /// Mark all of it as read.
    #[arg(long)]
    pub(super) read: bool,
}

/// Flags of `serve`.
#[derive(Debug, Default, Args)]
pub(super) struct ServeFlags {
    /// Where the ledger, the metrics and the first token are.
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    /// Address of the HTTP API.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<String>,
    /// Where tenants find Docker: a unix socket, or tcp://ADDRESS:PORT for TLS; may be given several
    /// times.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) gateway: Vec<String>,
    /// The container engine: a unix socket, or tcp://HOST:PORT over TLS.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) engine: Option<String>,
    /// Scopes labels and cgroups where several servers share one engine.
    #[arg(long, value_name = "NAME")]
    pub(super) instance: Option<String>,
    /// Name of this host in the ledger.
    #[arg(long, value_name = "NAME")]
    pub(super) host: Option<String>,
    /// Where cgroups are mounted.
    #[arg(long, value_name = "DIR")]
    pub(super) cgroup_root: Option<String>,
    /// Serve the engine's authorization plugin here, like /run/docker/plugins/plimsoll.sock.
    #[arg(long, value_name = "PATH")]
    pub(super) authz_socket: Option<String>,
    /// Any other key, like metering.interval_s=1; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
}

/// Flags of `install`.
#[derive(Debug, Args)]
pub(super) struct InstallFlags {
    /// Install below this folder instead of /, for images; runs nothing.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(super) root: PathBuf,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Replace files that something else put there.
    #[arg(long)]
    pub(super) force: bool,
}

/// Flags of `uninstall`.
#[derive(Debug, Args)]
pub(super) struct UninstallFlags {
    /// The folder given to install.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(super) root: PathBuf,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Also remove the data and files that were changed since.
    #[arg(long)]
    pub(super) purge: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorFlags {
    /// Look at the files below this folder instead of /.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(super) root: PathBuf,
}

/// `user ...`
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user, with the quota of their class.
    Add {
        /// 1 to 63 of a-z, 0-9, '.', '_' and '-'.
        name: String,
        /// Their uid on this host: who calls the gateway and the socket with it is this user.
        #[arg(long, value_name = "UID")]
        uid: Option<u32>,
        /// Where notices go.
        #[arg(long)]
        email: Option<String>,
        /// The quota class they start with.
        #[arg(long)]
        class: Option<String>,
        /// What they may do on the whole system.
        #[arg(long, value_enum)]
        role: Option<Role>,
    },
    /// List all users.
    #[command(visible_alias = "ls")]
    List,
    /// Show a user and their teams.
    Show {
        /// Name or id.
        user: String,
    },
    /// Change a user's mail address or uid.
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Set {
        /// Name or id.
        user: String,
        /// A new uid.
        #[arg(long, value_name = "UID", group = "change")]
        uid: Option<u32>,
        /// Take the uid away.
        #[arg(long, conflicts_with = "uid", group = "change")]
        no_uid: bool,
        /// A new mail address.
        #[arg(long, group = "change")]
        email: Option<String>,
        /// Take the mail address away.
        #[arg(long, conflicts_with = "email", group = "change")]
        no_email: bool,
        /// Whether notifications are wanted there, too.
        #[arg(long, value_name = "YES", group = "change")]
        mail: Option<bool>,
        /// For the audit log.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let a user make no new claims; what runs goes on.
    Suspend {
        /// Name or id.
        user: String,
        /// For the audit log.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Undo suspend.
    Resume {
        /// Name or id.
        user: String,
        /// For the audit log.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Make a client certificate for the gateway over TLS, with a docker context; or list them.
    Cert(CertFlags),
    /// End a certificate at once, and its connections.
    RevokeCert {
        /// Its serial number, as `user cert NAME --list` shows it.
        serial: String,
    },
    /// Delete a user who holds nothing.
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id.
        user: String,
        /// Refuse new claims now and delete once the last container is gone.
        #[arg(long)]
        drain: bool,
    },
}

/// Flags of `user cert`.
#[derive(Debug, Args)]
pub(super) struct CertFlags {
    /// Name or id.
    pub(super) user: String,
    /// How long it counts [default: 90].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=730))]
    pub(super) days: Option<i64>,
    /// The folder for ca.pem, cert.pem, key.pem and the docker context [default: plimsoll-USER].
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Where the gateway is reached, like tcp://gpu1.example:2376 [default: as the server says].
    #[arg(long, value_name = "URL")]
    pub(super) endpoint: Option<String>,
    /// List the user's certificates instead.
    #[arg(long, conflicts_with_all = ["days", "out", "endpoint"])]
    pub(super) list: bool,
}

/// `ca ...`
#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Make the authority and the server's certificate; nothing is overwritten.
    ///
    /// For other names, remove server.pem and server.key and run it again: the authority stays.
    Init {
        /// A name or address by which clients reach the server; may be given several times.
        #[arg(long, value_name = "NAME|IP")]
        host: Vec<String>,
        /// The server's data directory [default: as configured].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Show fingerprints, expiry and the server's names.
    Show {
        /// The server's data directory [default: as configured].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

/// What someone may do on the whole system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Uses their own quota.
    Member,
    /// Reads everything.
    Viewer,
    /// Does everything.
    Admin,
}

/// What a member may do in a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TeamRole {
    /// Adds members and moves allotments.
    Lead,
    /// Uses an allotment and the pool.
    Member,
}

/// `team ...`
#[derive(Debug, Subcommand)]
pub(super) enum TeamCommand {
    /// Add a team. It has nothing to give until it gets members or a quota.
    Add {
        /// 1 to 63 of a-z, 0-9, '.', '_' and '-'.
        name: String,
        /// The quota class it starts with.
        #[arg(long)]
        class: Option<String>,
    },
    /// List the teams you may see.
    #[command(visible_alias = "ls")]
    List,
    /// Show a team and its members.
    Show {
        /// Name or id.
        team: String,
    },
    /// Delete a team that holds nothing.
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id.
        team: String,
        /// Refuse new claims now and delete once the last container is gone.
        #[arg(long)]
        drain: bool,
    },
    /// Add, change and remove members.
    #[command(subcommand)]
    Member(MemberCommand),
    /// Move parts of the team's limit between its members and its pool.
    Redistribute(RedistributeFlags),
    /// List what was moved, newest first.
    Redistributions {
        /// The team.
        team: String,
    },
    /// Take back what was moved.
    Undo {
        /// The team.
        team: String,
        /// The id of the redistribution.
        id: String,
    },
}

/// `team member ...`
#[derive(Debug, Subcommand)]
pub(super) enum MemberCommand {
    /// Add a member; without an allotment, their first team copies their own quota.
    Add(MemberFlags),
    /// Change a member's role, allotment or borrow limit.
    Set(MemberFlags),
    /// Take a member out of a team.
    #[command(visible_alias = "rm")]
    Remove {
        /// Name or id.
        team: String,
        /// Name or id.
        user: String,
        /// Refuse new claims now and remove once the last container is gone.
        #[arg(long)]
        drain: bool,
    },
    /// List a team's members.
    #[command(visible_alias = "ls")]
    List {
        /// Name or id.
        team: String,
    },
}

/// Flags of `team member add` and `set`.
#[derive(Debug, Args)]
pub(super) struct MemberFlags {
    /// Name or id.
    pub(super) team: String,
    /// Name or id.
    pub(super) user: String,
    /// What they may do in the team.
    #[arg(long, value_enum)]
    pub(super) role: Option<TeamRole>,
    /// The allotment.
    #[command(flatten)]
    pub(super) allotment: AllotmentFlags,
    /// How far they may reach into the pool.
    #[command(flatten)]
    pub(super) borrow: BorrowFlags,
    /// Whether containers that name no team go to this one.
    #[arg(long = "default", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) is_default: Option<bool>,
    /// For the audit log.
    #[arg(long)]
    pub(super) reason: Option<String>,
}

/// `image ...`
#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// Keep one of the host's images from tenants, by this name.
    Private {
        /// Like python:3 or registry.lab:5000/tools:2.
        reference: String,
    },
    /// Give it to everybody again.
    Public {
        /// Like python:3 or registry.lab:5000/tools:2.
        reference: String,
    },
    /// List what is kept from tenants.
    #[command(visible_alias = "ls")]
    List,
}

/// Flags of `team redistribute`.
#[derive(Debug, Args)]
pub(super) struct RedistributeFlags {
    /// The team.
    pub(super) team: String,
    /// Who gives: a member, or `pool`.
    #[arg(long, default_value = "pool")]
    pub(super) from: String,
    /// Who gets: a member, or `pool`.
    #[arg(long, default_value = "pool")]
    pub(super) to: String,
    /// How much.
    #[command(flatten)]
    pub(super) amounts: AllotmentFlags,
    /// Take it back by itself then.
    #[arg(long, value_name = "WHEN", value_parser = super::when::parse)]
    pub(super) until: Option<When>,
    /// Only tell what would come of it.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Why.
    #[arg(long)]
    pub(super) reason: String,
}

/// `project ...`
#[derive(Debug, Subcommand)]
pub(super) enum ProjectCommand {
    /// Add a project: a label that use is broken down by.
    Add {
        /// 1 to 63 of a-z, 0-9, '.', '_' and '-'.
        name: String,
        /// The team it belongs to.
        #[arg(long, conflicts_with = "user")]
        team: Option<String>,
        /// The user it belongs to; you unless named.
        #[arg(long)]
        user: Option<String>,
    },
    /// List the projects you may see.
    #[command(visible_alias = "ls")]
    List,
    /// Delete a project.
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id.
        project: String,
    },
}

/// `token ...`
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print its secret, once.
    ///
    /// A lost administrator's token is no loss: root on the host makes a new one with
    /// `plimsoll token add --admin`.
    Add {
        /// Whose; yours unless named, nobody's when an administrator names no one.
        #[arg(long)]
        user: Option<String>,
        /// At most this role, and never more than its user's.
        #[arg(long, value_enum)]
        role: Option<Role>,
        /// An administrator's token that belongs to no user.
        #[arg(long, conflicts_with_all = ["user", "role"])]
        admin: bool,
        /// What it is for.
        #[arg(long)]
        label: Option<String>,
        /// When it ends: a time (2026-12-31T00:00:00Z) or a span from now (30d, 12h).
        #[arg(long, value_name = "WHEN", value_parser = super::when::parse)]
        expires: Option<When>,
    },
    /// List your tokens; an administrator sees all.
    #[command(visible_alias = "ls")]
    List,
    /// End a token at once.
    #[command(visible_alias = "rm")]
    Revoke {
        /// Its id.
        id: String,
    },
}

/// `quota ...`
#[derive(Debug, Subcommand)]
pub(super) enum QuotaCommand {
    /// Show a quota: yours, or the one named.
    Show(Who),
    /// Change a quota; limits that are not named stay.
    Set(QuotaSetFlags),
    #[command(flatten)]
    Wish(WishCommand),
    /// Give what a request asks.
    Approve {
        /// Its id, as in `plimsoll quota requests`.
        request: String,
        /// Until then, in place of the request's own time.
        #[arg(long, value_name = "WHEN", value_parser = super::when::parse)]
        until: Option<When>,
        /// What they are told.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Deny a request.
    Deny {
        /// Its id.
        request: String,
        /// What they are told.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Add to a quota for a time: a user's, a team's pool, or a member's allotment out of the pool.
    Grant(GrantFlags),
    /// List additions for a time.
    Grants {
        /// Those that are over too.
        #[arg(long)]
        all: bool,
    },
    /// Take an addition back.
    Revoke {
        /// Its id, as in `plimsoll quota grants`.
        grant: String,
    },
}

/// What tenants do about their own quotas; `docker quota` has these too.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "parsed once a process")]
pub(super) enum WishCommand {
    /// Ask for more: up to the amounts that are named.
    Request(WishFlags),
    /// List requests: yours, and those you may answer.
    Requests {
        /// Answered ones too.
        #[arg(long)]
        all: bool,
    },
    /// Take a request of yours back.
    Withdraw {
        /// Its id, as in `requests`.
        request: String,
    },
}

/// Flags of `quota request`.
#[derive(Debug, Args)]
pub(super) struct WishFlags {
    /// Up to how much.
    #[command(flatten)]
    pub(super) limits: LimitFlags,
    /// In this team; your default team unless named, `-` is none.
    #[arg(long)]
    pub(super) team: Option<String>,
    /// Until then: a time, a day (2026-12-31, friday) or a span (3d); for good unless named.
    #[arg(long, value_name = "WHEN", value_parser = super::when::parse)]
    pub(super) until: Option<When>,
    /// What it is for.
    #[arg(long)]
    pub(super) reason: String,
}

/// Flags of `quota grant`.
#[derive(Debug, Args)]
pub(super) struct GrantFlags {
    /// To this user: outside teams, or as a member of --team.
    #[arg(required_unless_present = "team")]
    pub(super) user: Option<String>,
    /// To this team's pool, or to a member of it.
    #[arg(long)]
    pub(super) team: Option<String>,
    /// How much more.
    #[command(flatten)]
    pub(super) limits: LimitFlags,
    /// From then on; now unless named.
    #[arg(long, value_name = "WHEN", value_parser = super::when::parse)]
    pub(super) from: Option<When>,
    /// Until then: a time, a day or a span; until it is taken back unless named.
    #[arg(long, value_name = "WHEN", value_parser = super::when::parse)]
    pub(super) until: Option<When>,
    /// Why.
    #[arg(long)]
    pub(super) reason: Option<String>,
}

/// What kind of entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// A user.
    User,
    /// A team.
    Team,
    /// Everything together.
    System,
}

/// Whose quota or use.
#[derive(Debug, Clone, Args)]
pub(super) struct Who {
    /// `user`, `team` or `system`; you unless named.
    #[arg(value_enum)]
    pub(super) kind: Option<Kind>,
    /// Name or id of the user or team.
    pub(super) name: Option<String>,
}

/// What an entity's limits do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Refuse what does not fit.
    Enforce,
    /// Admit it, and record what would have been refused.
    Shadow,
    /// Do not look.
    Off,
}

/// Flags of `quota set`.
#[derive(Debug, Args)]
pub(super) struct QuotaSetFlags {
    /// `user`, `team` or `system`.
    #[arg(value_enum)]
    pub(super) kind: Kind,
    /// Name or id of the user or team.
    pub(super) name: Option<String>,
    /// The limits. On a team they fix what the whole team has.
    #[command(flatten)]
    pub(super) limits: LimitFlags,
    /// Set the team's shared pool: its limit becomes allotments and pool together.
    #[arg(long)]
    pub(super) pool: bool,
    /// What the limits do.
    #[arg(long, value_enum)]
    pub(super) mode: Option<Mode>,
    /// Promise this many times the limits; real use is held at them. 1 is no overcommit.
    #[arg(long, value_name = "FACTOR")]
    pub(super) overcommit: Option<f64>,
    /// What is done where a limit is exceeded, each step so long after it was: like
    /// `throttle=5m,stop=1h,memory.stop=10m,announce=2m,scavenger`; `none`, or `class` for what the
    /// class says.
    #[arg(long, value_name = "STEPS", value_parser = super::ladder::parse)]
    pub(super) ladder: Option<Ladder>,
    /// Where their days begin, like Europe/Berlin.
    #[arg(long, value_name = "ZONE")]
    pub(super) time_zone: Option<String>,
    /// For the audit log.
    #[arg(long)]
    pub(super) reason: Option<String>,
}

/// Flags of `history`.
#[derive(Debug, Args)]
pub(super) struct HistoryFlags {
    /// Whose: yours, or that of the user, team or system named.
    #[command(flatten)]
    pub(super) who: Who,
    /// That of a container, by the engine's full id.
    #[arg(long, value_name = "ID", conflicts_with_all = ["kind", "name"])]
    pub(super) container: Option<String>,
    /// That of a project, by name or id.
    #[arg(long, value_name = "PROJECT", conflicts_with_all = ["kind", "name", "container"])]
    pub(super) project: Option<String>,
    /// That of a host: all that is used on it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["kind", "name", "container", "project"])]
    pub(super) host: Option<String>,
    /// What: cpu, memory, pids, ...; a wrong one lists all.
    #[arg(long, default_value = "cpu")]
    pub(super) metric: String,
    /// From when on: a time (2026-12-31T00:00:00Z), a day (2026-12-31, monday) or a span before now
    /// (7d, 12h).
    #[arg(long, value_name = "WHEN", default_value = "24h", value_parser = super::when::parse)]
    pub(super) since: When,
    /// The span of each point, like 5m or 1h; one that suits unless given.
    #[arg(long, value_name = "SPAN")]
    pub(super) step: Option<String>,
    /// Print a table for other programs: time, average, maximum, total.
    #[arg(long)]
    pub(super) csv: bool,
}

/// Where recorded series are.
#[derive(Debug, Args)]
pub(super) struct RecordedFlags {
    /// The columns `timestamp` (ISO 8601, UTC unless it says otherwise, or Unix seconds) and `value`;
    /// with `series`, many in one file, answered one a line. - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(super) csv: PathBuf,
}

/// Flags of `forecast`.
#[derive(Debug, Args)]
pub(super) struct ForecastFlags {
    /// The series.
    #[command(flatten)]
    pub(super) recorded: RecordedFlags,
    /// How far ahead, like 14d or 12h.
    #[arg(long, value_name = "SPAN", default_value = "14d", value_parser = super::when::span)]
    pub(super) horizon: i64,
    /// How often the interval shall hold, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "80", value_parser = clap::value_parser!(u8).range(1..=99))]
    pub(super) level: u8,
}

/// Flags of `exhaustion`.
#[derive(Debug, Args)]
pub(super) struct ExhaustionFlags {
    /// The series.
    #[command(flatten)]
    pub(super) recorded: RecordedFlags,
    /// What there is, in the unit of the values.
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    pub(super) limit: f64,
    /// How often the interval shall hold, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "80", value_parser = clap::value_parser!(u8).range(1..=99))]
    pub(super) level: u8,
}

/// Flags of `spikes`.
#[derive(Debug, Args)]
pub(super) struct SpikesFlags {
    /// The series.
    #[command(flatten)]
    pub(super) recorded: RecordedFlags,
    /// How far from the usual is odd, in standard deviations [default: 6].
    #[arg(long, value_name = "NUMBER")]
    pub(super) far: Option<f64>,
}

/// Flags of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportFlags {
    /// How finely: raw (every reading), 5m, 1h or 1d.
    #[arg(long, default_value = "1h")]
    pub(super) level: String,
    /// From when on: a time, a day or a span before now (7d, 12h).
    #[arg(long, value_name = "WHEN", default_value = "24h", value_parser = super::when::parse)]
    pub(super) from: When,
    /// Until when [default: now].
    #[arg(long, value_name = "WHEN", value_parser = super::when::parse)]
    pub(super) to: Option<When>,
    /// These metrics alone: cpu,memory; a wrong one lists all.
    #[arg(long, value_name = "NAMES")]
    pub(super) metric: Option<String>,
    /// Of these alone: system, host, team, user, project or container.
    #[arg(long, value_name = "KIND")]
    pub(super) of: Option<String>,
    /// Into this file [default: the standard output].
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

/// What `top` has a line for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// A user.
    User,
    /// A team.
    Team,
    /// A project.
    Project,
    /// A container that runs.
    Container,
}

/// What `top` sorts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// CPU in use.
    Cpu,
    /// Working set.
    Memory,
    /// Bytes over the network.
    Net,
    /// Bytes to and from disks.
    Disk,
    /// Processes and threads.
    Pids,
    /// The alphabet.
    Name,
}

/// Flags of `top`.
#[derive(Debug, Args)]
pub(super) struct TopFlags {
    /// What has a line.
    #[arg(long, default_value = "container")]
    pub(super) by: By,
    /// What is first.
    #[arg(long, default_value = "cpu")]
    pub(super) sort: Sort,
    /// Print one table and end, also where there is a terminal; --json does, too.
    #[arg(long)]
    pub(super) once: bool,
}

/// Flags of `ps`.
#[derive(Debug, Args)]
pub(super) struct PsFlags {
    /// Of this user.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// In this team.
    #[arg(long)]
    pub(super) team: Option<String>,
    /// Of this project.
    #[arg(long)]
    pub(super) project: Option<String>,
    /// In this state; all live ones unless named.
    #[arg(long, value_parser = ["pending", "active", "stopped", "released", "void"])]
    pub(super) state: Option<String>,
}

/// Flags of `validate`.
#[derive(Debug, Args)]
pub(super) struct ValidateFlags {
    /// Whose request: you, or the user or team named.
    #[command(flatten)]
    pub(super) who: Who,
    /// The team it would be charged to; `-` is none, their default unless named.
    #[arg(long)]
    pub(super) team: Option<String>,
    /// The project it would count under.
    #[arg(long)]
    pub(super) project: Option<String>,
    /// A Compose file instead: would all of its services fit together?
    #[arg(long, short, value_name = "COMPOSE_FILE",
          conflicts_with_all = ["cpus", "memory", "storage", "temp_storage", "gpus", "pids", "containers"])]
    pub(super) file: Option<PathBuf>,
    /// What is asked for.
    #[command(flatten)]
    pub(super) request: RequestFlags,
}

/// Flags of `decisions`.
#[derive(Debug, Args)]
pub(super) struct DecisionsFlags {
    /// Of this user.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Only refusals.
    #[arg(long, conflicts_with = "allowed")]
    pub(super) refused: bool,
    /// Only what was admitted.
    #[arg(long)]
    pub(super) allowed: bool,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) limit: u32,
}

/// Flags of `violations`.
#[derive(Debug, Args)]
pub(super) struct ViolationsFlags {
    /// Of this user's limits.
    #[arg(long, conflicts_with = "team")]
    pub(super) user: Option<String>,
    /// Of this team's limits.
    #[arg(long)]
    pub(super) team: Option<String>,
    /// Of this kind.
    #[arg(long, value_parser = ["reserved", "used", "held", "throttled"])]
    pub(super) kind: Option<String>,
    /// In this dimension.
    #[arg(long)]
    pub(super) dimension: Option<String>,
    /// Closed ones, too.
    #[arg(long)]
    pub(super) all: bool,
}

/// Flags of `enforce`.
#[derive(Debug, Args)]
pub(super) struct EnforceFlags {
    /// Only for the limits of a `user`, a `team` or the `system`.
    #[arg(value_enum)]
    pub(super) kind: Option<Kind>,
    /// Name or id of the user or team.
    #[arg(requires = "kind")]
    pub(super) name: Option<String>,
    /// Say what would be done.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// `shadow ...`
#[derive(Debug, Subcommand)]
pub(super) enum ShadowCommand {
    /// Show what they would have refused, and what would be done about what runs.
    Report {
        /// From when on: a time, a day or a span before now (7d, 12h).
        #[arg(long, value_name = "WHEN", default_value = "7d", value_parser = super::when::parse)]
        since: When,
    },
}

/// `caps ...`
#[derive(Debug, Subcommand)]
pub(super) enum CapsCommand {
    /// Set the tenants' cgroup limits from the ledger, before the engine starts their containers.
    Restore,
}
