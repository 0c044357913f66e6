//! Ports of a pod: how they are written, and what they are.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::digits::digits;

/// One port of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Port {
    /// Port inside the container, 1 to 65535.
    #[schema(minimum = 1)]
    pub container: u16,
    /// Port of the node, 1 to 65535; a free one is chosen where none is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub host: Option<u16>,
    /// `tcp` or `udp`.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    /// The word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

impl Port {
    const RULE: &'static str = "a port such as 80, \"8080:80\", \"53:53/udp\" or {\"container\":80,\"host\":8080,\"protocol\":\"tcp\"}, each 1 to 65535";

    /// The port of `80`, `8080:80` or `53:53/udp`; `None` if it is none.
    pub fn parse(text: &str) -> Option<Port> {
        let (numbers, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((numbers, "udp")) => (numbers, Protocol::Udp),
            Some(_) => return None,
        };
        let number = |text: &str| digits::<u16>(text).filter(|port| *port > 0);
        let (host, container) = match numbers.split_once(':') {
            Some((host, container)) => (Some(number(host)?), number(container)?),
            None => (None, number(numbers)?),
        };
        Some(Port {
            container,
            host,
            protocol,
        })
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(host) = self.host {
            write!(f, "{host}:")?;
        }
        write!(f, "{}/{}", self.container, self.protocol.as_str())
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Port, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Whole {
            container: std::num::NonZeroU16,
            host: Option<std::num::NonZeroU16>,
            #[serde(default)]
            protocol: Protocol,
        }
        let given = Value::deserialize(deserializer)?;
        let port = match &given {
            Value::Number(number) => Port::parse(&number.to_string()),
            Value::String(text) => Port::parse(text),
            Value::Object(_) => Whole::deserialize(&given).ok().map(|whole| Port {
                container: whole.container.get(),
                host: whole.host.map(std::num::NonZeroU16::get),
                protocol: whole.protocol,
            }),
            _ => None,
        };
        port.ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "invalid value: {given}, expected {}",
                Port::RULE
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Vec<Port>, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn ports_are_written_in_three_ways() {
        let ports = parse(r#"[80,"8080:81","53:53/udp",{"container":9,"host":10}]"#).unwrap();
        let shown: Vec<String> = ports.iter().map(Port::to_string).collect();
        assert_eq!(shown, ["80/tcp", "8080:81/tcp", "53:53/udp", "10:9/tcp"]);
        for bad in [
            "0",
            "65536",
            "\"80:\"",
            "\"80/sctp\"",
            "\"a\"",
            "true",
            "{}",
            "{\"host\":1}",
        ] {
            assert!(parse(&format!("[{bad}]")).is_err(), "{bad}");
        }
    }
}
