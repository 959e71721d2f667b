#!/usr/bin/env bash
# Prints the rules of deploy/prometheus/edge-alerts.yml as the Prometheus Operator wants them.
#
# usage: scripts/prometheus-rule.sh >deploy/kubernetes/components/prometheus-operator/rules.yaml
set -euo pipefail
cd "$(dirname "$0")/.."

cat <<'END'
# Made by scripts/prometheus-rule.sh of deploy/prometheus/edge-alerts.yml: change that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: claw-edge
spec:
END
sed 's/^\(.\)/  \1/' deploy/prometheus/edge-alerts.yml
