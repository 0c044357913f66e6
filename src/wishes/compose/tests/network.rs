//! Ports, networks, names, and the wall around a container.

use serde_json::json;

use super::super::super::Level;
use super::super::super::tests::told;
use super::{check, check_with, refuses, service, tells_with, warns};

#[test]
fn ports() {
    check(
        "ports: [80, '8080:81', '53:53/udp']",
        json!({"ports": [
            {"container": 80, "protocol": "tcp"}, {"container": 81, "host": 8080, "protocol": "tcp"},
            {"container": 53, "host": 53, "protocol": "udp"},
        ]}),
    );
    check(
        "ports: ['8000-8001:9000-9001', '0.0.0.0:5:6', '[::]:7:8']",
        json!({"ports": [
            {"container": 9000, "host": 8000, "protocol": "tcp"}, {"container": 9001, "host": 8001, "protocol": "tcp"},
            {"container": 6, "host": 5, "protocol": "tcp"}, {"container": 8, "host": 7, "protocol": "tcp"},
        ]}),
    );
    check(
        "ports: ['3000-3001']",
        json!({"ports": [{"container": 3000, "protocol": "tcp"}, {"container": 3001, "protocol": "tcp"}]}),
    );
    check(
        "ports: [{target: 80, published: '8080', protocol: udp, mode: host, host_ip: 0.0.0.0}]",
        json!({"ports": [{"container": 80, "host": 8080, "protocol": "udp"}]}),
    );
    check(
        "ports: ['80:80', '80:80/tcp']",
        json!({"ports": [{"container": 80, "host": 80, "protocol": "tcp"}]}),
    );
    refuses(
        "ports: ['127.0.0.1:80:80']",
        "services.web.ports[0]",
        "to listen on 127.0.0.1 alone",
    );
    refuses(
        "ports: ['127.0.0.1::80']",
        "services.web.ports[0]",
        "alone is not possible",
    );
    refuses(
        "ports: ['[::1]:80:80']",
        "services.web.ports[0]",
        "to listen on ::1 alone",
    );
    refuses(
        "ports: [{target: 80, host_ip: 10.0.0.1}]",
        "services.web.ports[0].host_ip",
        "10.0.0.1",
    );
    refuses(
        "ports: ['8000-9000:80']",
        "services.web.ports[0]",
        "as many ports",
    );
    refuses("ports: ['80/sctp']", "services.web.ports[0]", "sctp");
    refuses(
        "ports: [eighty]",
        "services.web.ports[0]",
        "allowed is a port",
    );
    refuses(
        "ports: ['1-65535']",
        "services.web.ports[0]",
        "at most 100 ports",
    );
    refuses(
        "ports: [{published: 80}]",
        "services.web.ports[0]",
        "target is needed",
    );
    refuses(
        "ports: [{target: 80, hostip: x}]",
        "services.web.ports[0].hostip",
        "meant is perhaps host_ip",
    );
    refuses(
        "ports: ['80:80', '81:80']",
        "services.web.ports",
        "each port once",
    );
    warns(
        "ports: ['80:80'], deploy: {replicas: 2}",
        "services.web.ports",
        "need as many nodes",
    );
    warns(
        "ports: [{target: 80, mode: ingress}]",
        "services.web.ports[0].mode",
        "no effect",
    );
}

#[test]
fn walls_and_their_doors() {
    check(
        "cap_add: [NET_ADMIN], cap_drop: [ALL], read_only: true",
        json!({"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "read_only": true}),
    );
    check(
        "privileged: true, ipc: private",
        json!({"privileged": true}),
    );
    check(
        "devices: ['/dev/fuse', '/dev/a:/dev/b:r', {source: /dev/c, target: /dev/d}]",
        json!({"devices": [{"host": "/dev/fuse"}, {"host": "/dev/a", "container": "/dev/b", "permissions": "r"}, {"host": "/dev/c", "container": "/dev/d"}]}),
    );
    refuses(
        "devices: [vendor.com/gpu=1]",
        "services.web.devices[0]",
        "CDI",
    );
    refuses("pid: host", "services.web.pid", "namespaces of its own");
    refuses(
        "security_opt: ['no-new-privileges:true']",
        "services.web.security_opt",
        "not possible",
    );
    refuses(
        "privileged: perhaps",
        "services.web.privileged",
        "true or false",
    );
}

#[test]
fn networks_and_names() {
    let top =
        "networks:\n  front:\n  back: {internal: true}\n  shared: {external: true, name: lan}\n";
    let warns =
        |more: &str, field: &str, part: &str| tells_with(top, more, Level::Warning, field, part);
    let refuses =
        |more: &str, field: &str, part: &str| tells_with(top, more, Level::Refused, field, part);
    check("network_mode: host", json!({"network": "host"}));
    check(
        "network_mode: none, dns: 1.1.1.1",
        json!({"network": "none", "dns": ["1.1.1.1"]}),
    );
    check("networks: [default]", json!({}));
    check(
        "dns: [1.1.1.1, '::1'], extra_hosts: ['a:1.2.3.4', 'b=[::1]', c=host-gateway]",
        json!({"dns": ["1.1.1.1", "::1"], "extra_hosts": {"a": "1.2.3.4", "b": "::1", "c": "host-gateway"}}),
    );
    check_with(top, "networks: [shared]", json!({"network": "lan"}));
    check_with(
        "networks: {default: {external: true, name: lan}}",
        "read_only: false",
        json!({"network": "lan"}),
    );
    check_with(top, "networks: {front: {aliases: [x]}}", json!({}));
    warns("networks: [front]", "networks.front", "not kept apart");
    warns(
        "networks: {front: {aliases: [x]}}",
        "services.web.networks.front.aliases",
        "no effect",
    );
    refuses(
        "networks: [back]",
        "services.web.networks",
        "open to the outside",
    );
    refuses(
        "networks: [front, shared]",
        "services.web.networks",
        "one network",
    );
    refuses(
        "networks: [gone]",
        "services.web.networks.gone",
        "no network gone",
    );
    refuses(
        "networks: {front: {ipv4_address: 10.0.0.1}}",
        "services.web.networks.front.ipv4_address",
        "cannot be chosen",
    );
    refuses(
        "network_mode: 'service:db'",
        "services.web.network_mode",
        "bridge, none and host",
    );
    refuses(
        "network_mode: host, networks: [front]",
        "services.web.network_mode",
        "exclude each other",
    );
    refuses(
        "extra_hosts: {a: nowhere}",
        "services.web.extra_hosts",
        "an IP address",
    );
    let reading = service("networks: [front, back]", top);
    assert_eq!(
        reading.level(),
        Some(Level::Warning),
        "{:?}",
        told(&reading)
    );
}
