"""NetworkPolicies, judged as a cluster's network would: may this pod open a connection to that one?

The rules are those of https://kubernetes.io/docs/concepts/services-networking/network-policies/: a pod that no policy selects for a
direction is open in it; one that is selected is closed but for what some policy allows; and a connection needs both ends' consent.
"""

import dataclasses
import ipaddress


@dataclasses.dataclass(frozen=True)
class Pod:
    """A pod: where it is, what it is called, and what its ports are called."""

    namespace: str
    labels: tuple = ()
    ports: tuple = ()
    address: str = "10.244.0.7"

    def port(self, wanted):
        return dict(self.ports).get(wanted, wanted)


@dataclasses.dataclass(frozen=True)
class Host:
    """An address that is no pod's."""

    address: str


def selects(selector, labels):
    """Whether a label selector chooses these labels. An empty one chooses everything."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for rule in selector.get("matchExpressions", []):
        value = labels.get(rule["key"])
        if not {
            "In": lambda: value in rule["values"],
            "NotIn": lambda: value not in rule["values"],
            "Exists": lambda: value is not None,
            "DoesNotExist": lambda: value is None,
        }[rule["operator"]]():
            return False
    return True


def _is_peer(peer, other, policy_namespace):
    if "ipBlock" in peer:
        # Pods have addresses, too, and a block of addresses counts for them in many networks: the careful reading.
        address = ipaddress.ip_address(other.address)
        inside = lambda cidr: address in ipaddress.ip_network(cidr)
        return inside(peer["ipBlock"]["cidr"]) and not any(map(inside, peer["ipBlock"].get("except", [])))
    if not isinstance(other, Pod):
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace}):
            return False
    elif other.namespace != policy_namespace:
        return False
    return selects(peer.get("podSelector", {}), dict(other.labels))


def _allows(rule, key, other, target, port, protocol, policy_namespace):
    ports = rule.get("ports")
    if ports and not any(
        (p.get("protocol", "TCP") == protocol) and (target.port(p["port"]) if isinstance(target, Pod) else p["port"]) == port for p in ports
    ):
        return False
    peers = rule.get(key)
    return not peers or any(_is_peer(peer, other, policy_namespace) for peer in peers)


def _open(policies, direction, key, pod, other, target, port, protocol):
    chosen = [
        p for p in policies
        if p["metadata"]["namespace"] == pod.namespace
        and direction in p["spec"].get("policyTypes", ["Ingress"])
        and selects(p["spec"]["podSelector"], dict(pod.labels))
    ]
    if not chosen:
        return True
    rules = [(rule, p["metadata"]["namespace"]) for p in chosen for rule in p["spec"].get(direction.lower(), [])]
    return any(_allows(rule, key, other, target, port, protocol, namespace) for rule, namespace in rules)


def reaches(policies, source, target, port, protocol="TCP"):
    """Whether `source` may open a connection to this port of `target`; the port is a number."""
    out = not isinstance(source, Pod) or _open(policies, "Egress", "to", source, target, target, port, protocol)
    into = not isinstance(target, Pod) or _open(policies, "Ingress", "from", target, source, target, port, protocol)
    return out and into
