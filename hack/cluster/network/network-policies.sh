#!/bin/sh
# Runs on the node, before the kubelet. The first packet of each connection from or to a pod waits for the verdict of the network policy
# engine (manifests/kube-network-policies.yaml), which listens on this queue. While it does not listen, the packet is dropped.
# The engine's own nftables rules need a kernel option that not every kernel has. They would also leave out the pod's own node, and a pod
# whose address the engine does not know yet.
set -eu
queue=98
# Pods are behind interfaces of these names: kindnet and the node image that is built here both use the plugin ptp.
pods=veth+

# Replaces the chain in one step.
chain() { # IPTABLES, reads rules
  {
    printf '*mangle\n:NETWORK-POLICIES - [0:0]\n'
    sed 's/^/-A NETWORK-POLICIES /'
    printf 'COMMIT\n'
  } | "$1-restore" -w --noflush
}

chain iptables << EOF
-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
-j NFQUEUE --queue-num $queue
EOF
# Neighbour discovery passes. The engine would accept other packets with link-local addresses, since no pod has them in its status.
chain ip6tables << EOF
-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
-p icmpv6 --icmpv6-type 133 -j RETURN
-p icmpv6 --icmpv6-type 134 -j RETURN
-p icmpv6 --icmpv6-type 135 -j RETURN
-p icmpv6 --icmpv6-type 136 -j RETURN
-s fe80::/10 -j DROP
-j NFQUEUE --queue-num $queue
EOF
# These hooks come after the translation of Service addresses. Connections that the node itself opens to its pods are not in them: policies
# do not apply to those, so that probes work.
for iptables in iptables ip6tables; do
  for hook in 'INPUT -i' 'FORWARD -i' 'FORWARD -o'; do
    # shellcheck disable=SC2086 # two words
    "$iptables" -w -t mangle -C $hook "$pods" -j NETWORK-POLICIES 2> /dev/null \
      || "$iptables" -w -t mangle -A $hook "$pods" -j NETWORK-POLICIES
  done
done
