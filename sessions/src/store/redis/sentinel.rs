//! How a master behind Sentinel is found: a client of the sentinels, made from URLs.

use redis::{
    ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisResult, TlsMode,
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};

/// A client that asks these sentinels for the master of that name, or of a URL with the name for a
/// host.
pub(super) fn sentinels(urls: &[&str], master: &str) -> RedisResult<SentinelClient> {
    let (mut name, mut node) = (master.to_string(), None);
    if master.contains("://") {
        let url = master.into_connection_info()?;
        let mut info = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(url.redis_settings().clone());
        match url.addr() {
            ConnectionAddr::Tcp(host, _) => name = host.to_string(),
            ConnectionAddr::TcpTls { host, insecure, .. } => {
                name = host.to_string();
                let mode = if *insecure { TlsMode::Insecure } else { TlsMode::Secure };
                info = info.set_tls_mode(mode);
            }
            _ => {
                let words = "the master has a name in place of a host, and is no socket";
                return Err((ErrorKind::InvalidClientConfig, words).into());
            }
        }
        node = Some(info);
    }
    SentinelClient::build(urls.to_vec(), name, node, SentinelServerType::Master)
}
