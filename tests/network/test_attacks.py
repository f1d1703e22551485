"""Connections that a sandbox must not be able to open. Each target is first reached from a pod without a policy."""

import pytest
from conftest import (
    AGENT,
    HOST_HTTP,
    HOST_UDP,
    HTTP,
    INTERNET,
    INTERNET_DNS,
    INTERNET_TOO,
    METADATA,
    PRIVATE,
    RELEASE,
    UDP,
    VICTIMS,
    by_outcome,
    kubectl,
)

# These may reach only public addresses.
STRICT = ["default", "host-users", "none", "rules"]


def everywhere(kinds_and_ports, *hosts):
    return [(kind, host, port) for host in hosts for kind, port in kinds_and_ports]


@pytest.fixture(scope="session")
def never(cluster, world):
    """What no rule can allow: the API server, its node, the metadata services, link-local addresses."""
    node, api = cluster["node"], cluster["api"]
    # The API server, the kubelet, its read-only port and kube-proxy's health. A closed port that refuses is reached, too.
    ports = [("tcp", port) for port in (6443, 10250, 10255, 10256)] + [("icmp", 0)]
    return [
        *everywhere(ports, node),
        ("tcp", f"::ffff:{node}", 6443),
        ("tcp", api, 443),
        ("tcp", "kubernetes.default.svc.cluster.local", 443),
        ("tcp", f"{node.replace('.', '-')}.ip.example.test", 10250),
        ("tcp", node, HOST_HTTP),
        ("udp", node, HOST_UDP),
        *everywhere([("tcp", 80), ("udp", 7), ("icmp", 0)], *METADATA, "169.254.10.10"),
        ("tcp", "::ffff:169.254.169.254", 80),
        ("tcp", "169-254-169-254.ip.example.test", 80),
    ]


@pytest.fixture(scope="session")
def private(cluster, world):
    """What only a rule can allow: private and special addresses, the cluster's pods and Services, node ports."""
    node, server, service, gateway = cluster["node"], world["server"], cluster["server"](), cluster["gateway"]
    namespace = server.namespace
    protocols = {port["nodePort"]: port["protocol"].lower() for port in service["ports"]}
    return [
        *everywhere([("tcp", 80), ("udp", 7), ("icmp", 0)], *(p for p in PRIVATE if p != "169.254.10.10")),
        ("tcp", "::ffff:10.200.0.10", 80),
        ("tcp", "10-200-0-10.ip.example.test", 80),
        *everywhere([("tcp", HTTP), ("udp", UDP), ("icmp", 0)], server.ip),
        ("tcp", f"::ffff:{server.ip}", HTTP),
        ("tcp", service["clusterIP"], 80),
        ("udp", service["clusterIP"], 81),
        ("tcp", f"server.{namespace}.svc.cluster.local", 80),
        *((protocol, node, port) for port, protocol in protocols.items()),
        *everywhere([("tcp", HTTP), ("udp", UDP)], *(world[name].ip for name in VICTIMS)),
        ("tcp", gateway["clusterIP"], gateway["ports"][0]["port"]),
        ("tcp", node, gateway["ports"][0]["nodePort"]),
        *(("tcp", ip, 8080) for ip in cluster["gateway pods"]),
    ]


@pytest.fixture(scope="session")
def internal(cluster, world):
    """What only our own components and the node may reach: agents, and the ports for metrics and health."""
    agents = [("tcp", world[name].ip, AGENT) for name in (*VICTIMS, "closed")]
    return agents + [("tcp", ip, 8081) for ip in cluster["gateway pods"]] + [("tcp", ip, 8080) for ip in cluster["operator pods"]]


def test_a_pod_without_a_policy_reaches_every_target(world, never, private):
    assert by_outcome(world["free"].attempts(never + private), reached=False) == {}


def test_every_internal_port_is_open(world, internal):
    """Seen from the pod itself, or from the node, to which policies do not apply."""
    for name in (*VICTIMS, "closed"):
        assert by_outcome(world[name].attempts([("tcp", "127.0.0.1", AGENT)]), reached=False) == {}
    for component, port in (("operator", 8080), ("gateway", 8081)):
        pod = kubectl("get", "pods", "-n", RELEASE, "-l", f"app.kubernetes.io/component={component}", "-o", "name").split()[0]
        assert "# TYPE" in kubectl("get", "--raw", f"/api/v1/namespaces/{RELEASE}/pods/{pod.removeprefix('pod/')}:{port}/proxy/metrics")


@pytest.mark.parametrize("attacker", STRICT)
def test_a_sandbox_reaches_no_private_address(world, never, private, internal, attacker):
    assert by_outcome(world[attacker].attempts(never + private + internal), reached=True) == {}


def test_the_widest_rules_do_not_reach_what_no_rule_can_allow(world, never):
    agents = [("tcp", world[name].ip, AGENT) for name in (*VICTIMS, "closed")]
    closed = everywhere([("tcp", HTTP), ("udp", UDP)], world["closed"].ip)
    assert by_outcome(world["widest"].attempts(never + agents + closed), reached=True) == {}


def test_the_widest_rules_reach_the_rest(world):
    allowed = [("tcp", world[name].ip, HTTP) for name in VICTIMS] + [("tcp", PRIVATE[0], 80), ("http", INTERNET, 80), ("dns", INTERNET_DNS, 53)]
    assert by_outcome(world["widest"].attempts(allowed), reached=False) == {}


@pytest.mark.parametrize("attacker", [*STRICT, "widest"])
def test_no_form_of_ipv6_leads_around_the_policy(world, attacker):
    """Pods of the test cluster have no IPv6 address, so these fail without a policy, too. They matter on a dual-stack cluster."""
    forms = ["64:ff9b::a9fe:a9fe", "64:ff9b::ac8:a", "2002:a9fe:a9fe::1", "fd00:ec2::254", "fe80::1%eth0", "::a9fe:a9fe"]
    assert by_outcome(world[attacker].attempts(everywhere([("tcp", 80)], *forms)), reached=True) == {}


def test_the_default_reaches_the_internet_and_names(world, cluster):
    allowed = [
        ("http", INTERNET, 80),
        ("http", "b.example.test", 80),
        ("tls", "a.example.test", 443),
        ("tls", "x.y.cdn.example.test", 443),
        ("udp", INTERNET, 7),
        ("dns", cluster["dns"], 53),
        ("dns", INTERNET_DNS, 53),
        ("name", "kubernetes.default.svc.cluster.local", 0),
    ]
    assert by_outcome(world["default"].attempts(allowed), reached=False) == {}
    assert by_outcome(world["host-users"].attempts([*allowed, ("icmp", INTERNET, 0)]), reached=False) == {}


def test_none_reaches_nothing_and_no_name(world, cluster):
    attempts = [
        *everywhere([("tcp", 80), ("tcp", 443), ("tcp", 53), ("udp", 7), ("icmp", 0)], INTERNET),
        *everywhere([("dns", 53), ("tcp", 53)], cluster["dns"], INTERNET_DNS),
        ("name", "a.example.test", 0),
        ("name", "kubernetes.default.svc.cluster.local", 0),
    ]
    assert by_outcome(world["none"].attempts(attempts), reached=True) == {}


def test_rules_reach_exactly_their_target(world, cluster):
    allowed = [("http", INTERNET, 80), ("http", "a.example.test", 80), ("dns", cluster["dns"], 53)]
    assert by_outcome(world["rules"].attempts(allowed), reached=False) == {}
    denied = [
        *everywhere([("tcp", 443), ("tcp", 53), ("udp", 80), ("udp", 7), ("icmp", 0)], INTERNET),
        *everywhere([("tcp", 80), ("udp", 7)], INTERNET_TOO, INTERNET_DNS),
        ("dns", INTERNET_DNS, 53),
        ("http", "b.example.test", 80),
    ]
    assert by_outcome(world["rules"].attempts(denied), reached=True) == {}


def test_only_an_ingress_rule_lets_another_pod_in(world):
    """The pod has no policy of its own. What the rules of the open sandboxes allow is among the targets that it reaches."""
    ports = [("tcp", HTTP), ("udp", UDP), ("icmp", 0), ("tcp", AGENT)]
    assert by_outcome(world["free"].attempts(everywhere(ports, world["closed"].ip)), reached=True) == {}
    # A rule does not open other ports, nor the agent's, which this one names.
    not_opened = everywhere([("tcp", HTTP + 1), ("udp", HTTP), ("tcp", AGENT), ("icmp", 0)], *(world[name].ip for name in VICTIMS))
    assert by_outcome(world["free"].attempts(not_opened), reached=True) == {}
    served = [("tcp", "127.0.0.1", HTTP), ("udp", "127.0.0.1", UDP)]
    assert by_outcome(world["closed"].attempts(served), reached=False) == {}
