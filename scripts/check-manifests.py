#!/usr/bin/env python3
"""Holds manifests that kustomize has built to the schemas of Kubernetes, to the restricted pod
security, and to each other.

usage: check-manifests.py VERSION SECRET FILE..        (called by check-manifests.sh)
"""

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import yaml

# Kinds of others, whose schemas do not come with Kubernetes: of these only the references to
# what is here are checked.
FOREIGN = {
    "traefik.io/v1alpha1": {"IngressRoute", "Middleware"},
    "gateway.networking.k8s.io/v1": {"HTTPRoute"},
    "gateway.envoyproxy.io/v1alpha1": {"EnvoyPatchPolicy"},
    "monitoring.coreos.com/v1": {"PrometheusRule", "ServiceMonitor"},
}
ROOT = Path(__file__).parent.parent
# The one name of a service in each kind of reference of the foreign kinds.
HOST = re.compile(r"\b([a-z-]+)\.claw\.svc\b")


class Manifests:
    def __init__(self, name, text):
        self.name = name
        self.all = [one for one in yaml.safe_load_all(text) if one]
        self.wrong = []

    def of(self, kind):
        return [one for one in self.all if one["kind"] == kind]

    def named(self, kind, name):
        return next((one for one in self.of(kind) if one["metadata"]["name"] == name), None)

    def expect(self, condition, one, complaint):
        if not condition:
            self.wrong.append(f"{self.name}: {one['kind']}/{one['metadata']['name']}: {complaint}")

    def workloads(self):
        return self.of("Deployment") + self.of("StatefulSet")


def schemas(manifests, version):
    for one in manifests.all:
        if one["kind"] in FOREIGN.get(one["apiVersion"], ()):
            continue
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except Exception as error:
            manifests.expect(False, one, f"{type(error).__name__}: {error}")


def security(manifests):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, restricted."""
    for one in manifests.workloads():
        pod = one["spec"]["template"]["spec"]
        context = pod.get("securityContext", {})
        expect = lambda condition, complaint: manifests.expect(condition, one, complaint)
        expect(context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0, "may be root")
        expect(context.get("seccompProfile") == {"type": "RuntimeDefault"}, "has no seccomp profile")
        expect(pod.get("automountServiceAccountToken") is False, "gets a token that it does not need")
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            expect(name not in pod, f"has {name}")
        for volume in pod.get("volumes", []):
            kinds = set(volume) - {"name"}
            expect(kinds <= {"configMap", "secret", "projected", "emptyDir"}, f"mounts {kinds}")
        for container in pod["containers"] + pod.get("initContainers", []):
            own = container.get("securityContext", {})
            expect(own.get("allowPrivilegeEscalation") is False, "may get more rights")
            expect(own.get("readOnlyRootFilesystem") is True, "may write to its root")
            expect(own.get("capabilities") == {"drop": ["ALL"]}, "has capabilities")
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                expect(probe in container, f"has no {probe}")
            resources = container.get("resources", {})
            expect({"cpu", "memory"} <= set(resources.get("requests", {})), "requests nothing")
            expect("memory" in resources.get("limits", {}), "may use all memory")
    for namespace in manifests.of("Namespace"):
        labels = namespace["metadata"].get("labels", {})
        level = labels.get("pod-security.kubernetes.io/enforce")
        manifests.expect(level == "restricted", namespace, "does not enforce the pod security")


def pods(manifests, selector):
    found = []
    for one in manifests.workloads():
        labels = one["spec"]["template"]["metadata"]["labels"]
        if selector.items() <= labels.items():
            found.append(one)
    return found


def secrets_of(volume):
    """The name and the items of each secret that a volume has files of."""
    if "secret" in volume:
        yield volume["secret"]["secretName"], volume["secret"]["items"]
    for source in volume.get("projected", {}).get("sources", []):
        yield source["secret"]["name"], source["secret"]["items"]


def references(manifests, secret):
    for one in manifests.workloads():
        expect = lambda condition, complaint: manifests.expect(condition, one, complaint)
        selector = one["spec"]["selector"]["matchLabels"]
        expect(pods(manifests, selector) == [one], "selects pods of another one")
        pod = one["spec"]["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        claims = one["spec"].get("volumeClaimTemplates", [])
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        expect(mounted == volumes | {claim["metadata"]["name"] for claim in claims}, "mounts other volumes")
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                name = volume["configMap"]["name"]
                expect(manifests.named("ConfigMap", name), f"there is no ConfigMap {name}")
            for name, items in secrets_of(volume):
                expect(name == secret["metadata"]["name"], "another secret")
                keys = {item["key"] for item in items}
                expect(keys <= set(secret["stringData"]), f"the secret lacks one of {keys}")
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                name = source["configMapRef"]["name"]
                expect(manifests.named("ConfigMap", name), f"there is no ConfigMap {name}")
    for service in manifests.of("Service"):
        found = pods(manifests, service["spec"]["selector"])
        manifests.expect(len(found) == 1, service, "does not lead to one kind of pods")
        ports = {
            port["name"]
            for one in found
            for container in one["spec"]["template"]["spec"]["containers"]
            for port in container["ports"]
        }
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if service["spec"].get("clusterIP") == "None" and target == port["port"]:
                target = port["name"]
            manifests.expect(target in ports, service, f"port {target} is none of {ports}")
    for policy in manifests.of("NetworkPolicy") + manifests.of("PodDisruptionBudget"):
        selector = policy["spec"].get("podSelector", policy["spec"].get("selector"))
        found = pods(manifests, selector.get("matchLabels", {}))
        manifests.expect(found, policy, "is for no pods")
        if policy["kind"] == "PodDisruptionBudget":
            manifests.expect(len(found) < 2, policy, "counts pods of several workloads as one")
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        scaled = manifests.named(target["kind"], target["name"])
        manifests.expect(scaled, scaler, "scales nothing")
        if scaled:
            manifests.expect("replicas" not in scaled["spec"], scaled, "undoes what its autoscaler did")
    for route in manifests.of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                leads_to(manifests, route, backend["name"], backend["port"])
    for route in manifests.of("IngressRoute"):
        for rule in route["spec"]["routes"]:
            for backend in rule["services"]:
                leads_to(manifests, route, backend["name"], backend["port"])
    for kind in ("Middleware", "EnvoyPatchPolicy"):
        for one in manifests.of(kind):
            hosts = HOST.findall(yaml.dump(one))
            manifests.expect(hosts, one, "leads nowhere")
            for host in hosts:
                manifests.expect(manifests.named("Service", host), one, f"there is no Service {host}")
    for monitor in manifests.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        services = [one for one in manifests.of("Service") if wanted <= one["metadata"].get("labels", {}).items()]
        manifests.expect(services, monitor, "monitors no Service")
        for endpoint in monitor["spec"]["endpoints"]:
            for service in services:
                leads_to(manifests, monitor, service["metadata"]["name"], endpoint["port"])


def leads_to(manifests, one, name, port):
    service = manifests.named("Service", name)
    manifests.expect(service, one, f"there is no Service {name}")
    if service:
        ports = service["spec"]["ports"]
        known = {port["name"] for port in ports} | {port["port"] for port in ports}
        manifests.expect(port in known, one, f"Service {name} has no port {port}")


def settings(manifests):
    """What the service is told are settings that it has."""
    table = (ROOT / "docs/edge/configuration.md").read_text()
    known = set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE))
    for one in manifests.of("ConfigMap"):
        # By the name before the hash.
        if one["metadata"]["name"].startswith("claw-edge-"):
            unknown = set(one["data"]) - known
            manifests.expect(not unknown, one, f"claw-edge has no setting {unknown}")
    for one in manifests.of("Deployment"):
        for container in one["spec"]["template"]["spec"]["containers"]:
            unknown = {variable["name"] for variable in container.get("env", [])} - known
            manifests.expect(not unknown, one, f"claw-edge has no setting {unknown}")


def settings_of(manifests, deployment):
    """What the containers of a deployment are told by ConfigMaps."""
    told = {}
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        for source in container.get("envFrom", []):
            told |= manifests.named("ConfigMap", source["configMapRef"]["name"])["data"]
    return told


def proxies(manifests):
    """Whoever is asked by a proxy believes it, or all clients are one."""
    for middleware in manifests.of("Middleware"):
        for host in HOST.findall(yaml.dump(middleware)):
            service = manifests.named("Service", host)
            for one in pods(manifests, service["spec"]["selector"]) if service else []:
                told = settings_of(manifests, one)
                manifests.expect(told.get("TRUSTED_PROXIES"), one, "trusts no proxy, and a Middleware asks it")


# As Kubernetes and as Redis write them.
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}


def size(text):
    """Bytes."""
    return int(text[:-2]) * UNITS[text[-2:]]


# Of claw-edge, measured: without connections, and for each of them.
OWN = 32 << 20
CONNECTION = 40 << 10


def memory(manifests):
    """What may be used is less than what kills."""
    table = (ROOT / "docs/edge/configuration.md").read_text()
    default = dict(re.findall(r"^\| `([A-Z_]+)` \| `(\d+)` \|", table, re.MULTILINE))
    for one in manifests.of("Deployment"):
        limit = size(one["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"])
        told = default | settings_of(manifests, one)
        # HTTP and gRPC have so many each.
        connections = 2 * int(told["MAX_CONNECTIONS"])
        needed = OWN + int(told["MAX_BODIES"]) + connections * CONNECTION
        manifests.expect(needed <= limit, one, f"may need {needed >> 20} MiB, and has {limit >> 20}")
    for one in manifests.of("StatefulSet"):
        container = one["spec"]["template"]["spec"]["containers"][0]
        limit = size(container["resources"]["limits"]["memory"])
        options = dict(zip(container["args"], container["args"][1:]))
        expect = lambda condition, complaint: manifests.expect(condition, one, complaint)
        expect("--maxmemory" in options, "has no maxmemory")
        # While it forks, each page may be there twice.
        most = size(options.get("--maxmemory", "0mb"))
        expect(2 * most < limit, "maxmemory is more than half of its memory")


PEER = re.compile(r"([a-z]+)=redis://([a-z]+)@([a-z.]+:\d+)")


def peers(manifests, secret):
    """Ratings come from the servers that limits are shared with, by a user that they know."""
    for one in manifests.of("ConfigMap"):
        told = one["data"].get("RATINGS_PEERS")
        if not told:
            continue
        expect = lambda condition, complaint: manifests.expect(condition, one, complaint)
        found = PEER.fullmatch(told)
        expect(found, f"{told} is no peer")
        if not found:
            continue
        region, user, address = found.groups()
        expect(region != one["data"]["REGION"], f"{region} is its own peer")
        expect(f"\nuser {user} on " in "\n" + secret["stringData"]["users.acl"], f"there is no user {user}")
        arguments = [
            argument
            for redis in manifests.of("StatefulSet")
            for container in redis["spec"]["template"]["spec"]["containers"]
            for argument in container["args"]
        ]
        limits = [urlsplit(argument).netloc for argument in arguments if argument.startswith("redis://")]
        expect([f"claw@{address}"] == limits, f"limits are shared with {limits}, ratings with {address}")
        expect(secret_file(manifests, one, "RATINGS_PEERS_PASSWORD_FILE"), "its password is not mounted")


def secret_file(manifests, settings, name):
    """Whether the pods that get these settings have the file that one of them names."""
    for one in manifests.of("Deployment"):
        pod = one["spec"]["template"]["spec"]
        for container in pod["containers"]:
            maps = [source["configMapRef"]["name"] for source in container.get("envFrom", [])]
            if settings["metadata"]["name"] not in maps:
                continue
            folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            files = {
                f"{folders[volume['name']]}/{item['path']}"
                for volume in pod["volumes"]
                for _, items in secrets_of(volume)
                for item in items
            }
            if settings["data"].get(name) not in files:
                return False
    return True


def rights(secret):
    """The users of Redis have the rights that the pages say."""
    lines = secret["stringData"]["users.acl"].splitlines()
    for user, *pages in (
        ("edge", "docs/edge/failures.md", "docs/edge/regions.md"),
        ("follower", "docs/edge/regions.md"),
        ("claw", "docs/regions.md"),
    ):
        line = next(line for line in lines if line.startswith(f"user {user} "))
        said = set()
        for page in pages:
            words = re.search(rf"ACL SETUSER {user} (?:on >password )?([^`]*?)\n```", (ROOT / page).read_text())
            said |= set(words[1].split())
        if set(line.split()[4:]) != said:
            yield f"secret.example.yaml: the rights of {user} are not those of {pages}"


def main():
    version, secret_file, *files = sys.argv[1:]
    secret = yaml.safe_load(Path(secret_file).read_text())
    wrong = list(rights(secret))
    count = 0
    for file in files:
        manifests = Manifests(Path(file).stem, Path(file).read_text())
        count += len(manifests.all)
        schemas(manifests, version)
        security(manifests)
        references(manifests, secret)
        settings(manifests)
        peers(manifests, secret)
        proxies(manifests)
        memory(manifests)
        wrong += manifests.wrong
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong or count == 0:
        sys.exit(f"check-manifests: {len(wrong)} mistakes in {count} manifests")
    print(f"check-manifests: {count} manifests of {len(files)} overlays")


if __name__ == "__main__":
    main()
