//! Logs, on standard error: standard output is for what was asked for.

use claims_topology::config::{LogFormat, TelemetryConfig};
use tracing_subscriber::{EnvFilter, fmt};

/// Of commands that end by themselves only warnings are shown, and nothing of the Kafka client: what goes wrong is
/// in the command's own message.
const COMMAND_FILTER: &str = "warn,librdkafka=off,rdkafka=off";

/// Installs the process's log. A filter that isn't the default one holds for every command.
pub fn init(config: &TelemetryConfig, is_service: bool) -> anyhow::Result<()> {
    let chosen = config.log_filter != TelemetryConfig::default().log_filter;
    let filter = if is_service || chosen { config.log_filter.as_str() } else { COMMAND_FILTER };
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        anyhow::anyhow!(
            "telemetry.log_filter: {filter:?} is no filter such as \"info,claims_runtime=debug\": {error}"
        )
    })?;
    let subscriber = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match config.log_format {
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            subscriber.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
    };
    installed.map_err(|error| anyhow::anyhow!("the log can't be installed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused() {
        let config = TelemetryConfig { log_filter: "claims=loud".into(), ..TelemetryConfig::default() };
        let error = init(&config, true).unwrap_err().to_string();
        assert!(error.contains("telemetry.log_filter"), "{error}");
    }

    #[test]
    fn the_filter_of_commands_is_one() {
        assert!(EnvFilter::try_new(COMMAND_FILTER).is_ok());
    }
}
