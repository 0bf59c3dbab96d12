"""What may be set: each value is described, has a type in the schema, and wrong ones are refused before anything is installed."""

import json
import re
import subprocess
import sys
import unittest

import yaml
from rendering import CHART, DIGEST, INSTALLATIONS, ROOT, helm, merged, refusal, rendered, template, values

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def resolved(schema):
    return SCHEMA["definitions"][schema["$ref"].split("/")[-1]] if "$ref" in schema else schema


class Schema(unittest.TestCase):
    def test_it_knows_the_values_that_there_are_and_no_others(self):
        def walk(schema, of, path):
            schema = resolved(schema)
            if "properties" not in schema:
                return
            self.assertIs(schema["additionalProperties"], False, path)
            known = set(schema["properties"]) - {"global"}
            spare = {"claims", "group", "kind", "name", "requests", "limits"}  # of objects that are Kubernetes' or empty
            self.assertEqual(known - spare, set(of) - spare, path)
            for key, value in of.items():
                walk(schema["properties"][key], value, f"{path}.{key}")

        walk(SCHEMA, VALUES, "")

    def test_wrong_values_are_refused(self):
        for wrong, complaint in [
            ({"gatway": {}}, "gatway"),
            ({"gateway": {"replica": 3}}, "replica"),
            ({"gateway": {"replicas": 0}}, "replicas"),
            ({"gateway": {"replicas": "2"}}, "replicas"),
            ({"gateway": {"drainSeconds": 5}}, "drainSeconds"),
            ({"gateway": {"publicUrl": "fn.example.com"}}, "publicUrl"),
            ({"gateway": {"ingress": {"enabled": True}}}, "hosts"),
            ({"gateway": {"httpRoute": {"enabled": True}}}, "parentRefs"),
            ({"gateway": {"ingress": {"hosts": ["https://fn.example.com"]}}}, "hosts"),
            ({"gateway": {"service": {"type": "ExternalName"}}}, "type"),
            ({"gateway": {"env": {"DAVIT_X": 5}}}, "DAVIT_X"),
            ({"gateway": {"env": {"BAD-NAME": "x"}}}, "BAD-NAME"),
            ({"gateway": {"stateSize": "four"}}, "stateSize"),
            ({"gateway": {"podDisruptionBudget": {"maxUnavailable": 0}}}, "maxUnavailable"),
            ({"images": {"davit": {"digest": "sha256:abc"}}}, "digest"),
            ({"images": {"registry": "https://registry.test/"}}, "registry"),
            ({"images": {"pullPolicy": "always"}}, "pullPolicy"),
            ({"runtimes": {"python2.7": {"repository": "x"}}}, "python2.7"),
            ({"postgres": {"external": {"sslMode": "off"}}}, "sslMode"),
            ({"postgres": {"external": {"database": "a?sslmode=disable"}}}, "database"),
            ({"postgres": {"external": {"cidrs": ["10.0.0.1"]}}}, "cidrs"),
            ({"artifacts": {"url": "file:///shared"}}, "url"),
            ({"functions": {"createNamespace": True}}, "namespace"),
            ({"functions": {"namespace": "Functions"}}, "namespace"),
            ({"functions": {"memoryMb": "8Gi"}}, "memoryMb"),
            ({"builds": {"network": "off"}}, "network"),
            ({"builds": {"timeout": "15 minutes"}}, "timeout"),
            ({"outboundAllow": ["10.0.0.0/33"]}, "outboundAllow"),
            ({"networkPolicy": {"private": ["everything"]}}, "private"),
            ({"networkPolicy": {"kubernetesApi": {"ports": []}}}, "ports"),
            ({"log": {"format": "xml"}}, "format"),
        ]:
            with self.subTest(wrong=wrong):
                said = refusal(merged(values(), wrong))
                self.assertIn(complaint, said)
                self.assertIn("schema", said)

    def test_what_no_schema_can_say_is_said_by_the_chart(self):
        for wrong, complaint in [
            ({"images": {"registry": "registry.test"}}, "Postgres is missing"),
            ({"postgres": {"bundled": {"enabled": True}}}, "images.registry is not set"),
            (values(metrics={"serviceMonitor": {"enabled": True}}), "networkPolicy.metrics.from"),
        ]:
            with self.subTest(wrong=wrong):
                self.assertIn(complaint, refusal(wrong))


class Chart(unittest.TestCase):
    def test_helm_finds_nothing_wrong(self):
        for name in ("", "values-airgapped.yaml"):
            arguments = ["--values", str(CHART / name)] if name else []
            done = helm("lint", "--strict", str(CHART), *arguments, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_installation_renders(self):
        for name, of in INSTALLATIONS.items():
            with self.subTest(installation=name):
                self.assertGreater(len(rendered(of)), 10)

    def test_the_reference_says_what_the_values_say(self):
        done = subprocess.run([sys.executable, ROOT / "tests" / "chart" / "reference.py", "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_it_is_of_this_tree(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        version = re.search(r'^\[workspace.package\]\nversion = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertEqual((chart["version"], chart["appVersion"]), (version, version))
        folders = {p.parent.name: "builds_for" in p.read_text() for p in (ROOT / "runtime-images").glob("*/runtime.toml")}
        self.assertEqual(set(VALUES["runtimes"]), {name for name, builds in folders.items() if not builds})
        self.assertEqual(set(VALUES["builders"]), {name for name, builds in folders.items() if builds})
        for kind, images in (("runtime", VALUES["runtimes"]), ("build", VALUES["builders"])):
            for name, image in images.items():
                self.assertEqual(image["repository"], f"davit/{kind}-{name}")

    def test_a_runtime_can_be_taken_away_and_an_image_pinned(self):
        of = values(runtimes={"java21": None, "node20": {"repository": "mirror/node", "tag": "7", "digest": DIGEST}})
        (settings,) = [o for o in rendered(of) if o["metadata"]["name"] == "davit-kubernetes"]
        runtimes = json.loads(settings["data"]["kubernetes.json"])["runtimes"]
        self.assertNotIn("java21", runtimes)
        self.assertEqual(runtimes["node20"], f"registry.test/tools/mirror/node:7@{DIGEST}")

    def test_the_notes_say_how_to_go_on(self):
        done = helm("install", "davit", str(CHART), "--dry-run=client", "--namespace", "davit-system", "--set", "images.registry=r", "--set", "postgres.bundled.enabled=true")
        self.assertIn("get secret davit-admin-token -o go-template='{{index .data \"token\" | base64decode}}'", done.stdout)
        self.assertIn("Keep a copy of the secret davit-master-key", done.stdout)

    def test_names_of_two_releases_in_a_namespace_do_not_meet(self):
        names = lambda text: {(o["kind"], o["metadata"]["name"]) for o in yaml.safe_load_all(text) if o}
        one = names(template(values()).stdout)
        two = names(helm("template", "second", str(CHART), "--set", "images.registry=r,postgres.external.host=db").stdout)
        self.assertEqual(one & two, set())


if __name__ == "__main__":
    unittest.main()
