"""Who may reach whom, as a table: the rendered NetworkPolicies are asked about each pair."""

import unittest

from network import Host, Pod, reaches
from rendering import INSTALLATIONS, NAMESPACE, RELEASE, TRIAL, pod_templates, rendered, values

PORTS = (("public", 7480), ("management", 7481), ("admin", 7482), ("peers", 7484), ("postgres", 5432))


def davit(component, namespace=NAMESPACE, instance=RELEASE):
    labels = {"app.kubernetes.io/name": "davit", "app.kubernetes.io/instance": instance, "app.kubernetes.io/component": component}
    return Pod(namespace, tuple(labels.items()), PORTS)


def function(network="egress", component="function", namespace=NAMESPACE, instance=RELEASE, address="10.244.0.7"):
    """A pod as the controller makes it: its own labels, and those that the chart tells it to add."""
    labels = {
        "app.kubernetes.io/managed-by": "davit",
        "app.kubernetes.io/component": component,
        "davit.network": network,
        "davit.installation": "6f1c",
        "davit.role": "instance",
        "app.kubernetes.io/instance": instance,
    }
    return Pod(namespace, tuple(labels.items()), (), address)


GATEWAY, CONTROLLER, POSTGRES, MIGRATE, TEST = map(davit, ("gateway", "controller", "postgres", "migrate", "test"))
FUNCTION, LONELY, BUILDER = function(), function("none"), function(component="builder")
DNS = Pod("kube-system", (("k8s-app", "kube-dns"),))
OTHER = Pod("shop", (("app", "shop"),), PORTS)
NEIGHBOUR = Pod(NAMESPACE, (("app", "cli"),), PORTS)
PROMETHEUS = Pod("monitoring", (("app", "prometheus"),))
INTERNET, METADATA, KUBERNETES, NODE = Host("203.0.113.9"), Host("169.254.169.254"), Host("10.96.0.1"), Host("192.168.1.10")
# In a private network, as most are.
RESOLVER = Host("10.255.255.53")
SIX, SIX_INSIDE = Host("2001:db8::1"), Host("fd00::1")


class Table(unittest.TestCase):
    def judge(self, of, pairs):
        policies = [o for o in rendered(of) if o["kind"] == "NetworkPolicy"]
        for source, target, port, expected, *protocol in pairs:
            with self.subTest(source=source, target=target, port=port):
                self.assertEqual(reaches(policies, source, target, port, *protocol), expected)

    def test_a_function_is_reached_by_davit_alone(self):
        self.judge(values(), [
            (GATEWAY, FUNCTION, 9000, True),
            (CONTROLLER, FUNCTION, 9000, True),
            (CONTROLLER, BUILDER, 9000, True),
            (GATEWAY, LONELY, 9000, True),
            (GATEWAY, FUNCTION, 9001, False),
            (GATEWAY, FUNCTION, 22, False),
            (TEST, FUNCTION, 9000, False),
            (MIGRATE, FUNCTION, 9000, False),
            (OTHER, FUNCTION, 9000, False),
            (NEIGHBOUR, FUNCTION, 9000, False),
            (PROMETHEUS, FUNCTION, 9000, False),
            (INTERNET, FUNCTION, 9000, False),
            (FUNCTION, FUNCTION, 9000, False),
            (FUNCTION, LONELY, 9000, False),
            (BUILDER, FUNCTION, 9000, False),
            (davit("gateway", namespace="shop"), FUNCTION, 9000, False),
            (davit("gateway", instance="another"), FUNCTION, 9000, False),
        ])

    def test_a_function_reaches_the_outside_world_and_nothing_of_the_cluster(self):
        self.judge(values(), [
            (FUNCTION, INTERNET, 443, True),
            (FUNCTION, INTERNET, 5432, True),
            (FUNCTION, SIX, 443, True),
            (FUNCTION, SIX_INSIDE, 443, False),
            (FUNCTION, RESOLVER, 53, True, "UDP"),
            (FUNCTION, RESOLVER, 53, True),
            (FUNCTION, RESOLVER, 80, False),
            (FUNCTION, DNS, 9153, False),
            (FUNCTION, METADATA, 80, False),
            (FUNCTION, KUBERNETES, 443, False),
            (FUNCTION, NODE, 10250, False),
            (FUNCTION, GATEWAY, 7480, False),
            (FUNCTION, GATEWAY, 7482, False),
            (FUNCTION, CONTROLLER, 7481, False),
            (FUNCTION, CONTROLLER, 7482, False),
            (FUNCTION, POSTGRES, 5432, False),
            (FUNCTION, OTHER, 7480, False),
            (FUNCTION, NEIGHBOUR, 7480, False),
        ])

    def test_one_without_a_network_reaches_nothing(self):
        self.judge(values(), [
            (LONELY, INTERNET, 443, False),
            (LONELY, SIX, 443, False),
            (LONELY, DNS, 53, False, "UDP"),
            (LONELY, METADATA, 80, False),
            (LONELY, KUBERNETES, 443, False),
            (LONELY, GATEWAY, 7480, False),
            (function("none", "builder"), INTERNET, 443, False),
        ])

    def test_builds_and_functions_are_let_out_apart(self):
        mirror = [{"to": [{"ipBlock": {"cidr": "10.3.0.0/16"}}], "ports": [{"port": 443}]}]
        of = values(networkPolicy={"functions": {"internet": False}, "builds": {"internet": False, "extraEgress": mirror}})
        self.judge(of, [
            (FUNCTION, INTERNET, 443, False),
            (FUNCTION, Host("10.3.0.1"), 443, False),
            (FUNCTION, RESOLVER, 53, True, "UDP"),
            (BUILDER, INTERNET, 443, False),
            (BUILDER, Host("10.3.0.1"), 443, True),
            (BUILDER, Host("10.3.0.1"), 80, False),
            (BUILDER, RESOLVER, 53, True, "UDP"),
        ])

    def test_names_are_asked_of_whom_the_nodes_ask_when_that_is_said(self):
        self.judge(values(networkPolicy={"dns": {"nodeResolvers": ["10.255.255.53/32"]}}), [
            (FUNCTION, RESOLVER, 53, True, "UDP"),
            (BUILDER, RESOLVER, 53, True, "UDP"),
            (FUNCTION, DNS, 53, False, "UDP"),
            (FUNCTION, Host("10.1.1.1"), 53, False, "UDP"),
            (LONELY, RESOLVER, 53, False, "UDP"),
            (GATEWAY, DNS, 53, True, "UDP"),
            (GATEWAY, RESOLVER, 53, False, "UDP"),
        ])

    def test_the_control_plane_is_reached_where_it_serves(self):
        self.judge(values(), [
            (INTERNET, GATEWAY, 7480, True),
            (OTHER, GATEWAY, 7480, True),
            (OTHER, GATEWAY, 7482, False),
            (PROMETHEUS, GATEWAY, 7482, False),
            (INTERNET, CONTROLLER, 7481, False),
            (OTHER, CONTROLLER, 7481, False),
            (NEIGHBOUR, CONTROLLER, 7481, True),
            (NEIGHBOUR, CONTROLLER, 7482, False),
            (NEIGHBOUR, GATEWAY, 7482, False),
            (TEST, GATEWAY, 7480, True),
            (TEST, CONTROLLER, 7481, True),
            (TEST, CONTROLLER, 7482, False),
            (GATEWAY, CONTROLLER, 7481, False),
            (CONTROLLER, GATEWAY, 7480, False),
            (GATEWAY, GATEWAY, 7484, True),
            (GATEWAY, GATEWAY, 7482, False),
            (CONTROLLER, GATEWAY, 7484, False),
            (NEIGHBOUR, GATEWAY, 7484, False),
            (FUNCTION, GATEWAY, 7484, False),
            (INTERNET, davit("anything"), 80, False),
            (davit("anything"), INTERNET, 443, False),
        ])

    def test_the_control_plane_reaches_what_it_needs(self):
        self.judge(values(), [
            (CONTROLLER, KUBERNETES, 443, True),
            (CONTROLLER, NODE, 6443, True),
            (CONTROLLER, NODE, 10250, False),
            (CONTROLLER, METADATA, 80, False),
            (GATEWAY, KUBERNETES, 443, False),
            (GATEWAY, NODE, 6443, False),
            (GATEWAY, INTERNET, 443, True),
            (GATEWAY, Host("10.9.0.5"), 5432, True),
            (CONTROLLER, Host("10.9.0.5"), 5432, True),
            (MIGRATE, Host("10.9.0.5"), 5432, True),
            (MIGRATE, INTERNET, 443, False),
            (MIGRATE, DNS, 53, True, "UDP"),
            (TEST, Host("10.9.0.5"), 5432, False),
            (TEST, INTERNET, 443, False),
        ])

    def test_an_external_postgres_may_be_said_to_lie_somewhere(self):
        of = INSTALLATIONS["postgres by its parts, with TLS both ways"]
        self.judge(of, [
            (GATEWAY, Host("10.9.0.5"), 6432, True),
            (MIGRATE, Host("10.9.0.5"), 6432, True),
            (GATEWAY, Host("10.9.0.5"), 5432, False),
            (GATEWAY, Host("10.8.0.5"), 6432, False),
        ])

    def test_the_bundled_postgres_is_reached_by_its_users_alone(self):
        self.judge(TRIAL, [
            (GATEWAY, POSTGRES, 5432, True),
            (CONTROLLER, POSTGRES, 5432, True),
            (MIGRATE, POSTGRES, 5432, True),
            (TEST, POSTGRES, 5432, False),
            (FUNCTION, POSTGRES, 5432, False),
            (NEIGHBOUR, POSTGRES, 5432, False),
            (OTHER, POSTGRES, 5432, False),
            (GATEWAY, Host("10.9.0.5"), 5432, False),
            (POSTGRES, INTERNET, 443, False),
            (POSTGRES, DNS, 53, False, "UDP"),
        ])

    def test_functions_in_a_namespace_of_their_own(self):
        of = INSTALLATIONS["functions in a namespace of their own"]
        apart = function(namespace="davit-functions")
        self.judge(of, [
            (GATEWAY, apart, 9000, True),
            (CONTROLLER, apart, 9000, True),
            (davit("gateway", namespace="davit-functions"), apart, 9000, False),
            (Pod("davit-functions", (("app", "x"),)), apart, 9000, False),
            (apart, INTERNET, 443, True),
            (apart, CONTROLLER, 7481, False),
            (apart, apart, 9000, False),
        ])

    def test_who_is_named_is_let_in_and_nobody_else(self):
        proxy = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}
        watcher = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        of = values(networkPolicy={"gateway": {"from": [proxy]}, "controller": {"from": [proxy]}, "metrics": {"from": [watcher]}})
        self.judge(of, [
            (Pod("ingress"), GATEWAY, 7480, True),
            (Pod("ingress"), CONTROLLER, 7481, True),
            (Pod("ingress"), GATEWAY, 7482, False),
            (OTHER, GATEWAY, 7480, False),
            (INTERNET, GATEWAY, 7480, False),
            (NEIGHBOUR, CONTROLLER, 7481, False),
            (TEST, GATEWAY, 7480, True),
            (TEST, CONTROLLER, 7481, True),
            (PROMETHEUS, GATEWAY, 7482, True),
            (PROMETHEUS, CONTROLLER, 7482, True),
            (PROMETHEUS, CONTROLLER, 7481, False),
        ])

    def test_networks_that_webhooks_may_reach_are_reached(self):
        of = values(outboundAllow=["10.1.0.0/16"])
        self.judge(of, [
            (GATEWAY, Host("10.1.2.3"), 8443, True),
            (GATEWAY, Host("10.2.2.3"), 8443, False),
            (FUNCTION, Host("10.1.2.3"), 8443, False),
        ])

    def test_without_a_way_out_nothing_leaves(self):
        of = INSTALLATIONS["air-gapped"]
        self.judge(of, [
            (GATEWAY, INTERNET, 443, False),
            (CONTROLLER, INTERNET, 443, False),
            (FUNCTION, INTERNET, 443, False),
            (BUILDER, INTERNET, 443, False),
            (CONTROLLER, Host("10.20.1.4"), 443, True),
            (CONTROLLER, Host("10.96.0.1"), 443, True),
            (CONTROLLER, Host("10.50.0.1"), 443, False),
            (GATEWAY, Host("10.20.0.8"), 5432, True),
        ])


class Pods(unittest.TestCase):
    def test_every_pod_of_davit_is_under_the_default_and_under_a_rule_of_its_own(self):
        from network import selects

        for name, of in INSTALLATIONS.items():
            objects = rendered(of)
            policies = [o for o in objects if o["kind"] == "NetworkPolicy"]
            if not policies:
                continue
            for pod, namespace, meta, _ in pod_templates(objects):
                with self.subTest(installation=name, pod=pod):
                    chosen = {p["metadata"]["name"] for p in policies if p["metadata"]["namespace"] == namespace and selects(p["spec"]["podSelector"], meta["labels"])}
                    component = meta["labels"]["app.kubernetes.io/component"]
                    self.assertEqual(chosen, {"davit-default-deny", f"davit-{component}"})

    def test_without_policies_everything_is_open_so_the_table_can_fail(self):
        self.assertTrue(reaches([], OTHER, FUNCTION, 9000))
        self.assertTrue(reaches([], FUNCTION, POSTGRES, 5432))


if __name__ == "__main__":
    unittest.main()
