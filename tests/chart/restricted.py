"""Pod Security "restricted", as https://kubernetes.io/docs/concepts/security/pod-security-standards/ has it, and what davit asks besides.

A cluster judges the same pods by itself (test_cluster.py); this is for where there is none.
"""

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def problems(spec):
    """What a pod's spec does that is not allowed."""
    pod = spec.get("securityContext", {})
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{key}"
    for volume in spec.get("volumes", []):
        if not set(volume) - {"name"} <= VOLUMES:
            yield f"volume {volume['name']}"
    for container in spec.get("initContainers", []) + spec["containers"]:
        own = container.get("securityContext", {})
        effective = {**pod, **own}
        name = container["name"]
        if own.get("privileged"):
            yield f"{name}: privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: capabilities"
        if effective.get("runAsNonRoot") is not True:
            yield f"{name}: runAsNonRoot"
        if effective.get("runAsUser") in (None, 0):
            yield f"{name}: runAsUser"
        if effective.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccompProfile"
        if own.get("procMount", "Default") != "Default" or pod.get("sysctls"):
            yield f"{name}: procMount or sysctls"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{name}: hostPort"
        # Not in the standard, but held here.
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: readOnlyRootFilesystem"
        if not container.get("resources", {}).get("limits", {}).get("memory"):
            yield f"{name}: no limit of memory"
        if not container.get("resources", {}).get("requests"):
            yield f"{name}: no requests"
