"""A real API server judges everything that the chart makes: its types and bounds, and Pod Security "restricted".

Needs KUBECONFIG, and is skipped without; nothing but a namespace is made, which goes again.
"""

import copy
import os
import secrets
import subprocess
import unittest

import yaml
from rendering import INSTALLATIONS, pod_templates, rendered, values

KUBECTL = os.environ.get("DAVIT_KUBECTL", "kubectl")
# Of other projects: a cluster has their types only when they are installed.
FOREIGN = {"Certificate", "ServiceMonitor", "HTTPRoute"}


def kubectl(*arguments, given=None):
    return subprocess.run([KUBECTL, *arguments], input=given, capture_output=True, text=True)


@unittest.skipUnless(os.environ.get("KUBECONFIG"), "no KUBECONFIG: `make cluster` starts a cluster and says where it is")
class Cluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.namespace = f"chart-{secrets.token_hex(4)}"
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        made = kubectl("create", "-f", "-", given=yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cls.namespace, "labels": labels}}))
        if made.returncode != 0:
            raise AssertionError(made.stderr)

    @classmethod
    def tearDownClass(cls):
        kubectl("delete", "namespace", cls.namespace, "--wait=false")

    def ask(self, objects):
        """Has the server judge these, all in one namespace; answers what it says besides errors."""
        objects = copy.deepcopy([o for o in objects if o["kind"] not in FOREIGN])
        for o in objects:
            if o["kind"] == "Namespace":
                o["metadata"]["name"] += f"-{self.namespace}"
            else:
                o["metadata"]["namespace"] = self.namespace
        return kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=yaml.safe_dump_all(objects))

    def test_it_accepts_every_installation_without_a_warning(self):
        for name, of in INSTALLATIONS.items():
            with self.subTest(installation=name):
                # The pod of `helm test` is a bare one and is judged by itself; the others are judged through what makes them.
                said = self.ask(rendered(of))
                self.assertEqual((said.returncode, said.stderr), (0, ""))

    def test_it_refuses_pods_that_may_more(self):
        (pod,) = [o for o in rendered(values()) if o["kind"] == "Pod"]
        self.assertEqual(self.ask([pod]).returncode, 0)
        for container in pod["spec"]["initContainers"]:
            container["securityContext"]["allowPrivilegeEscalation"] = True
        said = self.ask([pod])
        self.assertNotEqual(said.returncode, 0)
        self.assertIn('violates PodSecurity "restricted', said.stderr)

    def test_it_knows_every_setting_that_is_used(self):
        (deployment,) = [o for o in rendered(values()) if o["kind"] == "Deployment" and o["metadata"]["name"].endswith("gateway")]
        deployment["spec"]["template"]["spec"]["containers"][0]["readOnlyRootFileSystem"] = True
        said = self.ask([deployment])
        self.assertIn("unknown field", said.stderr)
        self.assertTrue(list(pod_templates([deployment])))


if __name__ == "__main__":
    unittest.main()
