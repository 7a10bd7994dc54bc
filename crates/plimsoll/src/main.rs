//! The binary: everything is in the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use plimsoll::config::Config;
use plimsoll::serve::serve;

#[derive(Debug, Parser)]
#[command(
    name = "plimsoll",
    version,
    about = "Quotas and usage monitoring for shared Docker hosts"
)]
enum Command {
    /// Run the server, the gateway and the background tasks.
    Serve {
        #[arg(long)]
        data_dir: Option<PathBuf>,
        #[arg(long)]
        listen: Option<String>,
        #[arg(long)]
        engine: Option<String>,
        #[arg(long)]
        gateway: Vec<String>,
        #[arg(long)]
        api_socket: Option<PathBuf>,
        #[arg(long)]
        instance: Option<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new("info"))
        .with_writer(std::io::stderr)
        .init();
    let Command::Serve {
        data_dir,
        listen,
        engine,
        gateway,
        api_socket,
        instance,
    } = Command::parse();
    let mut config = Config::default();
    config.data_dir = data_dir.unwrap_or(config.data_dir);
    config.listen = listen.unwrap_or(config.listen);
    config.engine = engine.unwrap_or(config.engine);
    config.api_socket = api_socket.unwrap_or(config.api_socket);
    config.instance = instance.unwrap_or(config.instance);
    if !gateway.is_empty() {
        config.gateway = gateway;
    }
    match serve(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plimsoll: {error}");
            ExitCode::FAILURE
        }
    }
}
