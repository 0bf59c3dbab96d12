"""The chart, rendered: what every test here begins with."""

import copy
import functools
import json
import os
import pathlib
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "davit"
HELM = os.environ.get("DAVIT_HELM", "helm")
RELEASE, NAMESPACE = "davit", "davit-system"
DIGEST = "sha256:" + "0123456789abcdef" * 4

# What nobody can do without.
LEAST = {"images": {"registry": "registry.test/tools"}, "postgres": {"external": {"urlSecret": {"name": "database"}}}}


def values(**more):
    """The least values, and these."""
    return merged(LEAST, more)


def merged(under, over):
    both = copy.deepcopy(under)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(both.get(key), dict):
            both[key] = merged(both[key], value)
        else:
            both[key] = value
    return both


TRIAL = merged({"images": LEAST["images"]}, {"postgres": {"bundled": {"enabled": True}}})

# Ways to install davit, each as somebody might. All of them are rendered, judged and shown to an API server.
INSTALLATIONS = {
    "least": values(),
    "trial": TRIAL,
    "trial without a volume": merged(
        TRIAL, {"postgres": {"bundled": {"persistence": {"enabled": False}}}, "gateway": {"replicas": 1}, "controller": {"replicas": 1}}
    ),
    "postgres by its parts, with TLS both ways": {
        "images": {"registry": "registry.test", "pullSecrets": ["registry"], "davit": {"digest": DIGEST}},
        "postgres": {
            "external": {
                "host": "db.test",
                "port": 6432,
                "passwordSecret": {"name": "db"},
                "caSecret": {"name": "db-ca"},
                "clientCertSecret": "db-client",
                "cidrs": ["10.9.0.0/24"],
            }
        },
    },
    "functions in a namespace of their own": values(
        functions={
            "namespace": "davit-functions",
            "createNamespace": True,
            "runtimeClassName": "gvisor",
            "priorityClassName": "functions",
            "nodeSelector": {"pool": "functions"},
            "tolerations": [{"key": "functions", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "podLabels": {"team": "platform"},
            "podAnnotations": {"note": "x"},
        }
    ),
    "scaled, seen from outside, watched": values(
        gateway={
            "autoscaling": {"enabled": True},
            "ingress": {
                "enabled": True,
                "className": "nginx",
                "hosts": ["fn.example.com", "*.fn.example.com"],
                "issuerRef": {"name": "letsencrypt", "kind": "ClusterIssuer"},
            },
            "tls": {"certManager": {"issuerRef": {"name": "inner", "kind": "Issuer"}}},
            "service": {"port": 443},
        },
        controller={"httpRoute": {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["davit.example.com"]}},
        metrics={"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}, "dashboard": {"enabled": True}},
        networkPolicy={"metrics": {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]}},
    ),
    "by the Gateway API": values(
        gateway={
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "edge", "namespace": "infra"}], "hostnames": ["fn.example.com"]},
            "tls": {"secretName": "gateway-tls"},
        },
        controller={"ingress": {"enabled": True, "hosts": ["davit.example.com"], "tlsSecret": "davit-tls"}},
    ),
    "everything given by the operator": values(
        masterKey={"existingSecret": "keys"},
        adminToken={"existingSecret": "keys"},
        artifacts={"url": "s3://code/davit", "existingSecret": "s3"},
        outboundAllow=["10.1.0.0/16"],
        builds={"caBundle": {"configMap": "site-ca"}, "env": {"PIP_INDEX_URL": "https://pypi.test/simple"}, "envSecret": "indexes"},
        gateway={"env": {"DAVIT_WRITE_TIMEOUT": "45s"}, "podAnnotations": {"a": "b"}, "affinity": {"nodeAffinity": {}}, "priorityClassName": "high"},
        controller={"env": {"DAVIT_AUDIT_DAYS": "30"}, "podAnnotations": {"a": "b"}, "nodeSelector": {"pool": "infra"}},
        commonLabels={"team": "platform"},
        networkPolicy={"enabled": False},
    ),
    "air-gapped": yaml.safe_load((CHART / "values-airgapped.yaml").read_text()),
}


def helm(*arguments, check=True):
    """Runs Helm."""
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=check)


def template(of, *more, check=True):
    """Runs `helm template` with these values."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(of, file)
        file.flush()
        return helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", file.name, *more, check=check)


@functools.lru_cache(maxsize=None)
def _rendered(text):
    done = template(json.loads(text), check=False)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return [o for o in yaml.safe_load_all(done.stdout) if o]


def rendered(of):
    """The objects that these values become."""
    return copy.deepcopy(_rendered(json.dumps(of, sort_keys=True)))


def refusal(of):
    """What Helm says against these values; they have to be refused."""
    done = template(of, check=False)
    if done.returncode == 0:
        raise AssertionError("these values were not refused")
    return done.stderr


def named(objects, kind, name):
    """The one object of that kind and name."""
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def pod_templates(objects):
    """Every pod that these objects make: (name, namespace, metadata, spec)."""
    for o in objects:
        place = (f"{o['kind']}/{o['metadata']['name']}", o["metadata"].get("namespace"))
        if o["kind"] == "Pod":
            yield *place, o["metadata"], o["spec"]
        elif o["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield *place, o["spec"]["template"]["metadata"], o["spec"]["template"]["spec"]


def containers(spec):
    """A pod's containers, those that run first included."""
    return spec.get("initContainers", []) + spec["containers"]
