//! Names of all keys, each behind the configured prefix. The Lua library builds the same names.

use crate::model::{PodId, Priority, ServiceKey};

/// Builds key names.
#[derive(Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Keys {
        Keys {
            prefix: prefix.to_owned(),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether a text may be one of these keys.
    pub(crate) fn is_one(&self, text: &str) -> bool {
        text.strip_prefix(&self.prefix)
            .is_some_and(|name| !name.is_empty())
    }

    /// The key every function is called with; it derives the others from it.
    pub(crate) fn cluster(&self) -> String {
        self.key("cluster")
    }

    pub(crate) fn queue(&self, priority: Priority) -> String {
        match priority {
            Priority::High => self.key("sq:high"),
            Priority::Normal => self.key("sq"),
            Priority::Low => self.key("sq:low"),
        }
    }

    pub(crate) fn claims(&self) -> String {
        self.key("sq:claims")
    }

    pub(crate) fn parked(&self) -> String {
        self.key("sq:parked")
    }

    pub(crate) fn inbox(&self, node: &str) -> String {
        self.key(&format!("pq:{node}"))
    }

    pub(crate) fn handling(&self, node: &str) -> String {
        self.key(&format!("rq:{node}"))
    }

    pub(crate) fn assigned(&self, node: &str) -> String {
        self.key(&format!("cs:{node}"))
    }

    /// Living nodes, by their last heartbeat.
    pub(crate) fn nodes(&self) -> String {
        self.key("nodes")
    }

    pub(crate) fn nodes_lost(&self) -> String {
        self.key("nodes:lost")
    }

    /// Nodes that tell which of their pods use most.
    pub(crate) fn nodes_strained(&self) -> String {
        self.key("nodes:strained")
    }

    pub(crate) fn node(&self, node: &str) -> String {
        self.key(&format!("node:{node}"))
    }

    pub(crate) fn services(&self) -> String {
        self.key("services")
    }

    pub(crate) fn services_wake(&self) -> String {
        self.key("services:wake")
    }

    /// Services of a namespace that have a label.
    pub(crate) fn services_with(&self, namespace: &str, key: &str, value: &str) -> String {
        self.key(&format!("services:with:{namespace}/{key}={value}"))
    }

    pub(crate) fn service(&self, service: &ServiceKey) -> String {
        self.key(&format!("service:{service}"))
    }

    pub(crate) fn service_pods(&self, service: &ServiceKey) -> String {
        self.key(&format!("service:{service}:pods"))
    }

    pub(crate) fn pods(&self) -> String {
        self.key("pods")
    }

    pub(crate) fn pod(&self, pod: &PodId) -> String {
        self.key(&format!("pod:{pod}"))
    }

    /// What the agent of a node is asked for.
    pub(crate) fn requests(&self, node: &str) -> String {
        self.key(&format!("nq:{node}"))
    }

    /// What is said to one side of a session: `in` to the agent, `out` to the API.
    pub(crate) fn session_stream(&self, session: &str, stream: &str) -> String {
        self.key(&format!("session:{session}:{stream}"))
    }

    /// The last lines of a pod's container.
    pub(crate) fn kept_logs(&self, pod: &PodId) -> String {
        self.key(&format!("logs:{pod}"))
    }

    pub(crate) fn decisions(&self) -> String {
        self.key("decisions")
    }

    pub(crate) fn decision(&self, id: &str) -> String {
        self.key(&format!("decision:{id}"))
    }

    pub(crate) fn events(&self) -> String {
        self.key("events")
    }

    /// How many dead letters there ever were.
    pub(crate) fn dead_totals(&self) -> String {
        self.key("dead:totals")
    }

    pub(crate) fn dead(&self) -> String {
        self.key("dead")
    }
}
