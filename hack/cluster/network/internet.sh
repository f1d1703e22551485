#!/bin/sh
# Runs on the node. A network namespace is the internet, the private networks around the cluster and the cloud's metadata service.
# No packet to these addresses leaves the node.
set -eu

# 192.31.196.0/24 is public by IANA's registry, and the real one is a black hole for DNS (AS112). .1 to .3 and .53 are the internet.
public='192.31.196.1 192.31.196.2 192.31.196.3 192.31.196.53'
metadata='169.254.169.254 169.254.170.2 168.63.129.16 100.100.100.200'
# Private, shared, link-local, for benchmarks and for documentation.
private='10.200.0.10 172.31.0.10 192.168.200.10 100.64.0.10 169.254.10.10 198.18.0.10 203.0.113.10'

ip netns add internet 2> /dev/null || true
if ! ip link show internet > /dev/null 2>&1; then
  ip link add internet type veth peer name node netns internet
fi
# A routing metric that is worse than the interface's: the packets must not take the default route when it is down.
ip route replace blackhole 192.31.196.0/24 metric 1000
ip addr replace 192.31.196.254/32 dev internet
ip link set internet up
ip -n internet link set lo up
ip -n internet link set node up
ip -n internet route replace 192.31.196.254 dev node
for address in $public $metadata $private; do
  ip -n internet addr replace "$address/32" dev lo
  ip route replace "$address" dev internet src 192.31.196.254
  ip route replace blackhole "$address" metric 1000
done
# The node translates the addresses of pods (ptp's ipMasq), so replies need no other route. What is not translated comes from the node.
ip -n internet route replace default via 192.31.196.254 dev node
exec ip netns exec internet /kind/network/internet
