//! Default ports of a second checkout on one machine.

use super::Config;

/// Shifts every default port, as `cargo xtask up` does for the services it starts. Set when several checkouts run
/// side by side.
pub const PORT_OFFSET_VARIABLE: &str = "CLAIMS_DEV_PORT_OFFSET";

impl Config {
    /// The defaults with every port shifted by `offset`; `None` if a port would be beyond 65535.
    pub fn with_port_offset(offset: u16) -> Option<Self> {
        let mut config = Config::default();
        let addresses = [
            &mut config.kafka.bootstrap_servers,
            &mut config.registry.url,
            &mut config.analytics.clickhouse.url,
            &mut config.ingress.listen,
            &mut config.current_state.listen,
            &mut config.analytics.listen,
            &mut config.audit.listen,
        ];
        for address in addresses.into_iter().chain(&mut config.current_state.cql.nodes) {
            *address = shifted(address, offset)?;
        }
        Some(config)
    }

    /// The defaults for the services that `cargo xtask up` starts for this checkout: the ports are shifted by
    /// `CLAIMS_DEV_PORT_OFFSET` if it is set. Nothing else of the environment is read.
    pub fn for_dev_services() -> Self {
        let offset = std::env::var(PORT_OFFSET_VARIABLE).ok().and_then(|text| text.parse().ok());
        offset.and_then(Self::with_port_offset).unwrap_or_default()
    }
}

/// `host:port` or `scheme://host:port/path` with another port.
fn shifted(address: &str, offset: u16) -> Option<String> {
    let start = address.find("://").map_or(0, |at| at + 3);
    let Some(colon) = address[start..].find(':').map(|at| start + at + 1) else {
        return Some(address.to_owned());
    };
    let end = address[colon..].find('/').map_or(address.len(), |at| colon + at);
    let port = address[colon..end].parse::<u16>().ok()?.checked_add(offset)?;
    Some(format!("{}{port}{}", &address[..colon], &address[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_port_is_shifted() {
        let config = Config::with_port_offset(1000).unwrap();
        assert_eq!(config.kafka.bootstrap_servers, "127.0.0.1:10092");
        assert_eq!(config.registry.url, "http://127.0.0.1:9081/apis/ccompat/v7");
        assert_eq!(config.current_state.cql.nodes, ["127.0.0.1:10042"]);
        assert_eq!(config.analytics.clickhouse.url, "http://127.0.0.1:9123");
        assert_eq!(config.audit.listen, "127.0.0.1:10103");
        assert_eq!(Config::with_port_offset(0), Some(Config::default()));
    }

    #[test]
    fn a_port_beyond_the_last_is_refused() {
        assert_eq!(Config::with_port_offset(60_000), None);
    }
}
