# shellcheck shell=bash disable=SC2154 # variables are shared with ../cluster
# What the network tests need: enforcement of NetworkPolicy, and a stand-in for the internet. Sourced by ../cluster.

policies_image=kube-network-policies:$(version_of kubernetes sigs.k8s.io/kube-network-policies)
probe=network-policy-probe

ensure_policies_image() {
  go_part kube-network-policies kubernetes -ldflags '-s -w' sigs.k8s.io/kube-network-policies/cmd
  local key
  key=$(cat "$cache/parts/kube-network-policies/.key")
  is_fresh "$cache/policies-image" "$key" && have_image "$policies_image" && return
  step "image $policies_image"
  program_image "$policies_image" "$cache/parts/kube-network-policies/cmd" /usr/local/bin/kube-network-policies
  mkdir -p "$cache/policies-image"
  mark_fresh "$cache/policies-image" "$key"
  step_done
}

# Enforces NetworkPolicy and starts the stand-in for the internet, unless this version of them is on the cluster already.
add_network() {
  local key present
  key=$(hash_of "$(cat "$here"/network/* "$here/manifests/kube-network-policies.yaml" "$here"/go/internet/*.go)" "$policies_image")
  present=$(kubectl get configmap test-network -n kube-system -o jsonpath='{.data.key}' 2> /dev/null || true)
  [[ $present != "$key" ]] || return 0
  go_part internet internet -ldflags '-s -w' .
  ensure_policies_image
  load "$policies_image"
  step 'network policies'
  sed "s/VERSION\$/${policies_image#*:}/" "$here/manifests/kube-network-policies.yaml" | kubectl apply -f - > /dev/null
  kubectl rollout status daemonset kube-network-policies -n kube-system --timeout=120s > /dev/null
  on_node mkdir -p /kind/network
  tar -C "$here/network" -c . | on_node tar -C /kind/network -x --no-same-owner
  tar -C "$cache/parts/internet" -c internet | on_node tar -C /kind/network -x --no-same-owner --unlink-first
  on_node cp /kind/network/{network-policies,internet}.service /etc/systemd/system/
  on_node systemctl daemon-reload
  on_node systemctl enable --quiet network-policies internet
  on_node systemctl restart network-policies internet || die "$(on_node systemctl status --no-pager network-policies internet || true)"
  forward_test_domain
  step 'probe: is NetworkPolicy enforced?'
  probe_policies || die "this cluster does not enforce NetworkPolicy, see 'kubectl logs -n kube-system daemonset/kube-network-policies'"
  kubectl create configmap test-network -n kube-system --from-literal=key="$key" --dry-run=client -o yaml | kubectl apply -f - > /dev/null
}

# The cluster's DNS asks the stand-in for names of its domain.
forward_test_domain() {
  local corefile
  corefile=$(kubectl get configmap coredns -n kube-system -o jsonpath='{.data.Corefile}')
  ! grep -q example.test <<< "$corefile" || return 0
  corefile+=$'\nexample.test:53 {\n    errors\n    forward . 192.31.196.53\n}\n'
  kubectl create configmap coredns -n kube-system --from-literal=Corefile="$corefile" --dry-run=client -o yaml \
    | kubectl replace -f - > /dev/null
  # Without a restart it reloads the file only within two minutes.
  kubectl rollout restart deployment coredns -n kube-system > /dev/null
  kubectl rollout status deployment coredns -n kube-system --timeout=120s > /dev/null
}

# Succeeds if a policy for one of two identical pods denies connections to that pod only.
probe_policies() {
  local -A address=()
  local pod result
  kubectl delete namespace "$probe" --ignore-not-found > /dev/null
  kubectl create namespace "$probe" > /dev/null
  kubectl apply -n "$probe" -f "$here/manifests/network-policy-probe.yaml" > /dev/null
  kubectl wait -n "$probe" pods --all --for=condition=Ready --timeout=120s > /dev/null
  for pod in open closed; do address[$pod]=$(kubectl get pod "$pod" -n "$probe" -o jsonpath='{.status.podIP}'); done
  result=0
  kubectl exec -n "$probe" client -- python3 -c '
import socket, sys
def reached(address):
    try:
        socket.create_connection((address, 8000), 3).close()
    except OSError:
        return False
    return True
print("open:", reached(sys.argv[1]), "closed:", reached(sys.argv[2]))' "${address[open]}" "${address[closed]}" \
    | grep -qx 'open: True closed: False' || result=1
  kubectl delete namespace "$probe" --wait=false > /dev/null
  return "$result"
}
