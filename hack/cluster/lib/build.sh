# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with ../cluster
# Builds programs from Go modules. Sourced by ../cluster. The versions are in go/*/go.mod and nowhere else.
# Each part is kept in $cache/parts/PART with a key: the hash of its inputs. A change rebuilds only the parts that it affects.

hash_of() { printf '%s\0' "$@" | sha256sum | cut -c 1-16; }

is_fresh() { # DIR KEY
  [[ $(cat "$1/.key" 2> /dev/null) == "$2" ]]
}

mark_fresh() { printf '%s\n' "$2" > "$1/.key"; } # DIR KEY

version_of() { # MODULE_DIR MODULE
  awk -v module="$2" '$1 == module && $2 ~ /^v/ {print $2; exit}' "$here/go/$1/go.mod"
}

module_dir() { # MODULE_DIR MODULE
  (cd "$here/go/$1" && go mod download "$2" && go list -mod=readonly -m -f '{{.Dir}}' "$2")
}

go_part() { # PART MODULE_DIR GO_BUILD_ARGUMENT...: writes programs to $cache/parts/PART/
  local part=$1 module=$here/go/$2 out=$cache/parts/$1 key
  shift 2
  key=$(hash_of "$(find "$module" -name '*.go' | sort | xargs cat "$module/go.mod" "$module/go.sum")" "${CGO_ENABLED:-0}" "$@")
  is_fresh "$out" "$key" && return
  command -v go > /dev/null || die "building $part needs the Go toolchain"
  step "build $part"
  rm -rf "$out" && mkdir -p "$out"
  (cd "$module" && CGO_ENABLED=${CGO_ENABLED:-0} go build -trimpath -mod=readonly -o "$out/" "$@") \
    > "$cache/build-$part.log" 2>&1 || { tail -n 20 "$cache/build-$part.log" >&2; die "building $part failed"; }
  mark_fresh "$out" "$key"
  step_done
}

kubernetes_version=$(version_of kubernetes k8s.io/kubernetes)
kubernetes_programs=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubeadm kubectl)

kubernetes_ldflags() {
  local package minor flags='-s -w'
  minor=${kubernetes_version#v1.}
  # kubeadm takes a build without a version stamp for v0.0.0 and refuses the cluster's version.
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$kubernetes_version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    flags+=" -X $package.gitTreeState=clean"
  done
  printf '%s' "$flags"
}

# One program with a link for each of its names, see go/kubernetes/main.go.
build_kubernetes() {
  local program
  go_part kubernetes kubernetes -ldflags "$(kubernetes_ldflags)" .
  for program in "${kubernetes_programs[@]}"; do ln -sfn kubernetes "$cache/parts/kubernetes/$program"; done
}

build_kind() { go_part kind kind -ldflags '-s -w' sigs.k8s.io/kind; }
build_helm() { go_part helm kubernetes -ldflags '-s -w' helm.sh/helm/v4/cmd/helm; }
# Only where the rest of Kubernetes comes as an image.
build_kubectl() { go_part kubectl kubernetes -ldflags "$(kubernetes_ldflags)" k8s.io/kubernetes/cmd/kubectl; }

build_kwok() {
  go_part kwok kubernetes -ldflags '-s -w' sigs.k8s.io/kwok/cmd/kwok
  local stages module
  stages=$cache/parts/kwok/stages
  [[ ! -d $stages ]] || return 0
  module=$(module_dir kubernetes sigs.k8s.io/kwok)
  mkdir -p "$stages.new"
  cp "$module"/kustomize/stage/{node/fast/node-initialize,node/heartbeat/node-heartbeat}.yaml \
    "$module"/kustomize/stage/pod/fast/pod-{ready,complete,delete}.yaml "$stages.new/"
  chmod -R u+w "$stages.new"
  mv "$stages.new" "$stages"
}

build_node_programs() {
  build_kubernetes
  go_part coredns kubernetes -ldflags '-s -w' ./coredns
  go_part local-path-provisioner kubernetes -ldflags '-s -w' github.com/rancher/local-path-provisioner
  go_part etcd etcd -ldflags '-s -w' go.etcd.io/etcd/server/v3
  local containerd=github.com/containerd/containerd/v2 plugins=github.com/containernetworking/plugins/plugins
  go_part containerd containerd -tags 'no_aufs no_zfs no_btrfs no_devmapper' \
    -ldflags "-s -w -X $containerd/version.Version=$(version_of containerd $containerd)" \
    $containerd/cmd/{containerd,ctr,containerd-shim-runc-v2}
  # runc enters namespaces in C. Without seccomp support no pod starts.
  CGO_ENABLED=1 go_part runc runc -ldflags '-s -w -extldflags -static' -tags 'netgo osusergo seccomp' github.com/opencontainers/runc
  go_part cni-plugins cni-plugins -ldflags '-s -w' $plugins/{main/ptp,main/loopback,ipam/host-local,meta/portmap}
}

# Builds each PROGRAM that is not on the PATH already; `env` adds the built ones to the PATH.
ensure_tools() { # PROGRAM...
  local tool
  for tool in "$@"; do
    [[ -z $(found_elsewhere "$tool") ]] || continue
    "build_$tool"
    ln -sfn "$cache/parts/$tool/$tool" "$cache/bin/$tool"
  done
}

found_elsewhere() { # PROGRAM: prints its path outside of $cache/bin
  type -ap "$1" | grep -vxF "$cache/bin/$1" | head -n 1 || true
}
