"""What is installed: pods that may do little, rights that name what they are for, and objects that fit together."""

import json
import re
import unittest

from rendering import (
    DIGEST, INSTALLATIONS, NAMESPACE, RELEASE, ROOT, TRIAL, containers, merged, named, pod_templates, rendered, values,
)
from restricted import problems


# What the controller asks of Kubernetes, and so all that it may.
RIGHTS = {
    ("pods", "get"), ("pods", "list"), ("pods", "watch"), ("pods", "create"), ("pods", "delete"), ("pods/log", "get"), ("events", "list"),
    ("pods/resize", "patch"),
    ("configmaps", "get"), ("configmaps", "patch"),
}


def environment(container):
    """A container's variables: name to value, or to where it comes from."""
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container.get("env", [])}


class EveryInstallation(unittest.TestCase):
    def each(self):
        for name, of in INSTALLATIONS.items():
            with self.subTest(installation=name):
                yield rendered(of)

    def test_its_pods_pass_pod_security_restricted(self):
        for objects in self.each():
            for name, _, _, spec in pod_templates(objects):
                self.assertEqual(list(problems(spec)), [], name)

    def test_a_pod_that_may_too_much_would_be_seen(self):
        (spec,) = [s for n, _, _, s in pod_templates(rendered(values())) if n == "Deployment/davit-gateway"]
        spec["containers"][0]["securityContext"] = {"privileged": True}
        spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
        found = set(problems(spec))
        self.assertLessEqual({"volume host", "gateway: privileged", "gateway: capabilities", "gateway: readOnlyRootFilesystem"}, found)

    def test_only_the_controller_speaks_with_kubernetes(self):
        for objects in self.each():
            for name, _, _, spec in pod_templates(objects):
                self.assertEqual(spec["automountServiceAccountToken"], name == "Deployment/davit-controller", name)
                self.assertIs(spec["enableServiceLinks"], False, name)
            for o in objects:
                if o["kind"] == "ServiceAccount":
                    self.assertIs(o["automountServiceAccountToken"], False)

    def test_rights_are_named_one_by_one_in_the_namespace_of_functions(self):
        for objects in self.each():
            settings = json.loads(named(objects, "ConfigMap", "davit-kubernetes")["data"]["kubernetes.json"])
            self.assertEqual([o["kind"] for o in objects if o["kind"].startswith("ClusterRole")], [])
            (role,) = [o for o in objects if o["kind"] == "Role"]
            (binding,) = [o for o in objects if o["kind"] == "RoleBinding"]
            for o in (role, binding):
                self.assertEqual(o["metadata"]["namespace"], settings["namespace"])
            self.assertEqual(binding["subjects"], [{"kind": "ServiceAccount", "name": "davit-controller", "namespace": NAMESPACE}])
            rights = {(g, r, v) for rule in role["rules"] for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
            self.assertFalse(any("*" in part for right in rights for part in right))
            self.assertEqual({g for g, _, _ in rights}, {""})
            self.assertEqual({(r, v) for _, r, v in rights}, RIGHTS)
            (owner,) = [rule for rule in role["rules"] if rule["resources"] == ["configmaps"]]
            self.assertEqual(owner["resourceNames"], [settings["owner"]])

    def test_what_pods_refer_to_is_there_or_the_operators(self):
        given = {"database", "registry", "db", "db-ca", "db-client", "keys", "s3", "indexes", "site-ca", "davit-database",
                 "gateway-tls", "davit-tls", "davit-gateway-tls"}
        for objects in self.each():
            there = {(o["kind"], o["metadata"]["name"]) for o in objects}
            for name, _, _, spec in pod_templates(objects):
                wanted = {("Secret", v["secret"]["secretName"]) for v in spec.get("volumes", []) if "secret" in v}
                wanted |= {("ConfigMap", v["configMap"]["name"]) for v in spec.get("volumes", []) if "configMap" in v}
                if "serviceAccountName" in spec:
                    wanted.add(("ServiceAccount", spec["serviceAccountName"]))
                for container in containers(spec):
                    wanted |= {("Secret", e["secretRef"]["name"]) for e in container.get("envFrom", [])}
                    wanted |= {("Secret", v["secretKeyRef"]["name"]) for v in environment(container).values() if isinstance(v, dict) and "secretKeyRef" in v}
                    mounts = [m["name"] for m in container.get("volumeMounts", [])]
                    volumes = {v["name"] for v in spec.get("volumes", [])} | {"data"}
                    self.assertLessEqual(set(mounts), volumes, name)
                    self.assertEqual(len(mounts), len(set(mounts)), name)
                    self.assertEqual(len(container.get("env", [])), len(environment(container)), f"{name}: a variable twice")
                missing = {w for w in wanted if w not in there and w[1] not in given}
                self.assertEqual(missing, set(), name)

    def test_a_hook_before_the_installation_needs_nothing_of_it(self):
        for objects in self.each():
            there = {o["metadata"]["name"] for o in objects if o["kind"] in ("Secret", "ConfigMap")}
            job = named(objects, "Job", "davit-migrate")
            spec = job["spec"]["template"]["spec"]
            if "pre-install" in job["metadata"]["annotations"]["helm.sh/hook"]:
                text = json.dumps(spec)
                self.assertFalse([n for n in there if f'"{n}"' in text])
                self.assertNotIn("serviceAccountName", spec)

    def test_services_lead_to_ports_that_pods_have(self):
        for objects in self.each():
            pods = [(meta["labels"], {p["name"]: p["containerPort"] for c in spec["containers"] for p in c.get("ports", [])})
                    for _, _, meta, spec in pod_templates(objects)]
            for service in (o for o in objects if o["kind"] == "Service"):
                selector = service["spec"]["selector"].items()
                ports = [p for labels, p in pods if selector <= labels.items()]
                self.assertTrue(ports, service["metadata"]["name"])
                for port in service["spec"]["ports"]:
                    for there in ports:
                        self.assertIn(port["targetPort"], there, service["metadata"]["name"])
            backends = re.findall(r'"name": "(davit-(?:gateway|controller))", "port": (?:\{"number": )?(\d+)', json.dumps([o for o in objects if o["kind"] in ("Ingress", "HTTPRoute")]))
            for name, port in backends:
                self.assertEqual(named(objects, "Service", name)["spec"]["ports"][0]["port"], int(port))

    def test_workloads_select_their_own_pods_and_no_others(self):
        for objects in self.each():
            workloads = [o for o in objects if o["kind"] in ("Deployment", "StatefulSet")]
            for one in workloads:
                selector = one["spec"]["selector"]["matchLabels"].items()
                chosen = [w["metadata"]["name"] for w in workloads if selector <= w["spec"]["template"]["metadata"]["labels"].items()]
                self.assertEqual(chosen, [one["metadata"]["name"]])
            for budget in (o for o in objects if o["kind"] == "PodDisruptionBudget"):
                selector = budget["spec"]["selector"]["matchLabels"].items()
                chosen = [w["metadata"]["name"] for w in workloads if selector <= w["spec"]["template"]["metadata"]["labels"].items()]
                self.assertEqual(chosen, [budget["metadata"]["name"]])

    def test_everything_says_whose_it_is(self):
        for objects in self.each():
            for o in objects:
                labels = o["metadata"]["labels"]
                self.assertEqual((labels["app.kubernetes.io/name"], labels["app.kubernetes.io/instance"]), ("davit", RELEASE), o["metadata"]["name"])
                if o["kind"] != "Namespace":
                    self.assertTrue(o["metadata"]["namespace"], o["metadata"]["name"])

    def test_every_image_of_davit_is_the_operators(self):
        for objects in self.each():
            for name, _, _, spec in pod_templates(objects):
                for container in containers(spec):
                    if name != "StatefulSet/davit-postgres":
                        self.assertRegex(container["image"], r"^registry\.(inside\.)?test(/[a-z]+)?/davit/davit:0\.1\.0", name)


class Installations(unittest.TestCase):
    def test_the_hook_migrates_what_is_there_and_init_containers_what_is_not_yet(self):
        def shape(of):
            objects = rendered(of)
            job = named(objects, "Job", "davit-migrate")["metadata"]["annotations"]["helm.sh/hook"]
            first = {n: [c["args"][0] for c in s.get("initContainers", [])] for n, _, _, s in pod_templates(objects) if n.startswith("Deployment")}
            return job, first["Deployment/davit-gateway"], first["Deployment/davit-controller"]

        self.assertEqual(shape(values()), ("pre-install,pre-upgrade", [], []))
        self.assertEqual(shape(TRIAL), ("pre-upgrade", ["migrate"], ["migrate"]))

    def test_a_pod_that_ends_has_the_time_that_it_is_told(self):
        objects = rendered(values(gateway={"drainSeconds": 900}))
        spec = named(objects, "Deployment", "davit-gateway")["spec"]["template"]["spec"]
        (gateway,) = spec["containers"]
        pause = gateway["lifecycle"]["preStop"]["sleep"]["seconds"]
        self.assertEqual(environment(gateway)["DAVIT_DRAIN"], "900s")
        self.assertGreater(spec["terminationGracePeriodSeconds"], 900 + pause)

    def test_postgres_is_reached_with_tls_and_its_password_is_in_no_address(self):
        objects = rendered(INSTALLATIONS["postgres by its parts, with TLS both ways"])
        for name, _, _, spec in pod_templates(objects):
            for container in containers(spec):
                env = environment(container)
                if "DATABASE_URL" not in env:
                    continue
                self.assertEqual(env["DATABASE_URL"], "postgres://davit@db.test:6432/davit", name)
                self.assertEqual(env["PGPASSWORD"]["secretKeyRef"], {"name": "db", "key": "password"})
                self.assertEqual(env["PGSSLMODE"], "verify-full")
                mounted = {m["mountPath"] for m in container["volumeMounts"]}
                for key in ("PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"):
                    self.assertIn(env[key].rsplit("/", 1)[0], mounted, name)

    def test_all_components_have_one_master_key(self):
        for of, secret in [(values(), "davit-master-key"), (INSTALLATIONS["everything given by the operator"], "keys")]:
            for name, _, _, spec in pod_templates(rendered(of)):
                if name.startswith("Deployment"):
                    (volume,) = [v for v in spec["volumes"] if v["name"] == "master-key"]
                    self.assertEqual(volume["secret"]["secretName"], secret)

    def test_secrets_that_the_chart_makes_are_as_davit_wants_them_and_not_twice_the_same(self):
        import base64

        from rendering import template
        import yaml

        def made():
            secrets = {o["metadata"]["name"]: o for o in yaml.safe_load_all(template(TRIAL).stdout) if o and o["kind"] == "Secret"}
            return {n: base64.b64decode(next(iter(o["data"].values()))).decode() for n, o in secrets.items()}, secrets

        (one, objects), (two, _) = made(), made()
        self.assertRegex(one["davit-master-key"], r"^[0-9a-f]{64}$")
        self.assertRegex(one["davit-admin-token"], r"^dvt_[A-Za-z0-9]{43}$")
        self.assertRegex(one["davit-postgres"], r"^[A-Za-z0-9]{32}$")
        for name in one:
            self.assertNotEqual(one[name], two[name])
        self.assertEqual(objects["davit-master-key"]["metadata"]["annotations"], {"helm.sh/resource-policy": "keep"})

    def test_where_functions_are_called_follows_from_how_they_are_reached(self):
        def url(**gateway):
            objects = rendered(values(gateway=gateway))
            (pod,) = named(objects, "Deployment", "davit-gateway")["spec"]["template"]["spec"]["containers"]
            (control,) = named(objects, "Deployment", "davit-controller")["spec"]["template"]["spec"]["containers"]
            self.assertEqual(environment(pod)["DAVIT_PUBLIC_URL"], environment(control)["DAVIT_GATEWAY_URL"])
            return environment(pod)["DAVIT_PUBLIC_URL"]

        hosts = {"enabled": True, "hosts": ["fn.example.com"]}
        self.assertEqual(url(), "http://davit-gateway.davit-system.svc")
        self.assertEqual(url(service={"port": 8080}), "http://davit-gateway.davit-system.svc:8080")
        self.assertEqual(url(tls={"secretName": "t"}, service={"port": 443}), "https://davit-gateway.davit-system.svc")
        self.assertEqual(url(ingress=hosts), "http://fn.example.com")
        self.assertEqual(url(ingress={**hosts, "tlsSecret": "t"}), "https://fn.example.com")
        self.assertEqual(url(httpRoute={"enabled": True, "parentRefs": [{"name": "e"}], "hostnames": ["a.example.com"]}), "https://a.example.com")
        self.assertEqual(url(publicUrl="https://x.example.com/y", ingress=hosts), "https://x.example.com/y")

    def test_certificates_are_asked_for_where_they_are_used(self):
        objects = rendered(INSTALLATIONS["scaled, seen from outside, watched"])
        certificate = named(objects, "Certificate", "davit-gateway")
        self.assertEqual(certificate["spec"]["dnsNames"], ["davit-gateway.davit-system.svc"])
        spec = named(objects, "Deployment", "davit-gateway")["spec"]["template"]["spec"]
        self.assertIn({"name": "tls", "secret": {"secretName": certificate["spec"]["secretName"], "defaultMode": 0o440}}, spec["volumes"])
        ingress = named(objects, "Ingress", "davit-gateway")
        self.assertEqual(ingress["metadata"]["annotations"], {"cert-manager.io/cluster-issuer": "letsencrypt"})
        self.assertEqual(ingress["spec"]["tls"][0]["hosts"], ["fn.example.com", "*.fn.example.com"])

    def test_an_autoscaler_has_the_number_of_gateways_to_itself(self):
        objects = rendered(INSTALLATIONS["scaled, seen from outside, watched"])
        self.assertNotIn("replicas", named(objects, "Deployment", "davit-gateway")["spec"])
        scaler = named(objects, "HorizontalPodAutoscaler", "davit-gateway")["spec"]
        self.assertEqual((scaler["minReplicas"], scaler["maxReplicas"]), (2, 6))
        self.assertEqual(named(rendered(values()), "Deployment", "davit-gateway")["spec"]["replicas"], 2)

    def test_the_controller_is_told_about_the_cluster(self):
        settings = json.loads(named(rendered(INSTALLATIONS["functions in a namespace of their own"]), "ConfigMap", "davit-kubernetes")["data"]["kubernetes.json"])
        self.assertEqual(settings["namespace"], "davit-functions")
        self.assertEqual(settings["runtimeClassName"], "gvisor")
        self.assertEqual(settings["podLabels"], {"team": "platform", "app.kubernetes.io/instance": RELEASE})
        self.assertEqual((settings["memoryMb"], settings["instances"]), (8192, 200))
        self.assertEqual(set(settings["builders"]), {"go", "rust"})
        least = json.loads(named(rendered(values()), "ConfigMap", "davit-kubernetes")["data"]["kubernetes.json"])
        self.assertEqual(least["agentImage"], "registry.test/tools/davit/davit:0.1.0")
        self.assertNotIn("affinity", least)

    def test_the_owner_of_functions_is_in_their_namespace(self):
        for name in ("least", "functions in a namespace of their own"):
            objects = rendered(INSTALLATIONS[name])
            settings = json.loads(named(objects, "ConfigMap", "davit-kubernetes")["data"]["kubernetes.json"])
            self.assertEqual(named(objects, "ConfigMap", settings["owner"])["metadata"]["namespace"], settings["namespace"])
        namespace = named(objects, "Namespace", "davit-functions")
        self.assertEqual(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted")

    def test_new_settings_of_the_cluster_restart_controllers_and_nothing_else(self):
        def stamps(of):
            return {n: m.get("annotations") for n, _, m, _ in pod_templates(rendered(of)) if n.startswith("Deployment")}

        before, after = stamps(values()), stamps(values(functions={"instances": 50}))
        self.assertNotEqual(before["Deployment/davit-controller"], after["Deployment/davit-controller"])
        self.assertEqual(before["Deployment/davit-gateway"], after["Deployment/davit-gateway"])

    def test_prometheus_finds_gateways_and_controllers_by_a_service_of_their_own(self):
        objects = rendered(INSTALLATIONS["scaled, seen from outside, watched"])
        service = named(objects, "Service", "davit-metrics")
        monitor = named(objects, "ServiceMonitor", "davit-metrics")
        self.assertLessEqual(monitor["spec"]["selector"]["matchLabels"].items(), service["metadata"]["labels"].items())
        self.assertEqual(monitor["metadata"]["labels"]["release"], "prometheus")
        chosen = {n for n, _, m, _ in pod_templates(objects) if service["spec"]["selector"].items() <= m["labels"].items()}
        self.assertEqual(chosen, {"Deployment/davit-gateway", "Deployment/davit-controller"})
        public = [p["targetPort"] for n in ("davit-gateway", "davit-controller") for p in named(objects, "Service", n)["spec"]["ports"]]
        self.assertNotIn("admin", public)

    def test_the_dashboard_shows_numbers_that_gateways_have(self):
        objects = rendered(INSTALLATIONS["scaled, seen from outside, watched"])
        dashboard = json.loads(named(objects, "ConfigMap", "davit-dashboard")["data"]["davit.json"])
        wanted = set(re.findall(r"davit_\w+", json.dumps([p.get("targets") for p in dashboard["panels"]])))
        self.assertGreater(len(wanted), 10)
        source = "\n".join(p.read_text() for p in (ROOT / "gateway" / "src").rglob("*.rs"))
        for name in wanted:
            self.assertIn(f'"{re.sub("_bucket$", "", name)}"' if f'"{re.sub("_bucket$", "", name)}"' in source else f"# TYPE {name} ", source, name)

    def test_a_digest_is_what_counts(self):
        objects = rendered(merged(values(), {"images": {"tag": "9", "davit": {"digest": DIGEST}}}))
        (gateway,) = named(objects, "Deployment", "davit-gateway")["spec"]["template"]["spec"]["containers"]
        self.assertEqual(gateway["image"], f"registry.test/tools/davit/davit:9@{DIGEST}")


if __name__ == "__main__":
    unittest.main()
