#!/usr/bin/env bash
# Prints the URL at which this machine reaches the gateway: a NodePort of the test cluster's node.
set -euo pipefail
port=$(kubectl get service -n sandbox-operator sandbox-operator-gateway -o jsonpath='{.spec.ports[?(@.name=="grpc")].nodePort}')
[[ -n $port ]] || { echo "the gateway's Service has no node port: install the chart with gateway.service.type=NodePort" >&2; exit 1; }
node=$(kubectl get nodes -l '!type' -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
echo "http://$node:$port"
