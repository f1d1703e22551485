# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with ../cluster
# Programs from Go modules: sourced by ../cluster. The versions are those of go/*/go.mod, and nowhere else.
# Each part is kept in $cache/parts/PART beside a key of what it was made from, so that an edit rebuilds that part only.

hash_of() { printf '%s\0' "$@" | sha256sum | cut -c 1-16; }

is_fresh() { # DIR KEY
  [[ $(cat "$1/.key" 2> /dev/null) == "$2" ]]
}

mark_fresh() { printf '%s\n' "$2" > "$1/.key"; } # DIR KEY

version_of() { # PART MODULE
  awk -v module="$2" '$1 == module && $2 ~ /^v/ {print $2; exit}' "$here/go/$1/go.mod"
}

module_dir() { # PART MODULE
  (cd "$here/go/$1" && go mod download "$2" && go list -mod=readonly -m -f '{{.Dir}}' "$2")
}

go_part() { # PART GO_BUILD_ARGUMENT...: programs in $cache/parts/PART/
  local part=$1 out=$cache/parts/$1 key
  shift
  key=$(hash_of "$(cat "$here/go/$part/go.mod" "$here/go/$part/go.sum")" "${CGO_ENABLED:-0}" "$@")
  is_fresh "$out" "$key" && return
  command -v go > /dev/null || die "the Go toolchain is needed to build $part"
  step "build $part"
  rm -rf "$out" && mkdir -p "$out"
  (cd "$here/go/$part" && CGO_ENABLED=${CGO_ENABLED:-0} go build -trimpath -mod=readonly -o "$out/" "$@") \
    > "$cache/build-$part.log" 2>&1 || { tail -n 20 "$cache/build-$part.log" >&2; die "building $part failed"; }
  mark_fresh "$out" "$key"
}

kubernetes_version=$(version_of kubernetes k8s.io/kubernetes)

kubernetes_ldflags() {
  local package minor flags='-s -w'
  minor=${kubernetes_version#v1.}
  # Without a version stamp kubeadm believes that it is v0.0.0.
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$kubernetes_version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    flags+=" -X $package.gitTreeState=clean"
  done
  printf '%s' "$flags"
}

build_kubernetes() {
  local commands=k8s.io/kubernetes/cmd
  go_part kubernetes -ldflags "$(kubernetes_ldflags)" \
    $commands/kube-{apiserver,controller-manager,scheduler,proxy} $commands/kube{let,adm,ctl}
}

build_kubectl() { # alone, where the rest of Kubernetes comes as an image
  go_part kubernetes -ldflags "$(kubernetes_ldflags)" k8s.io/kubernetes/cmd/kubectl
}

build_kind() { go_part kind -ldflags '-s -w' sigs.k8s.io/kind; }
build_helm() { go_part helm -ldflags '-s -w' helm.sh/helm/v4/cmd/helm; }

build_kwok() {
  go_part kwok -ldflags '-s -w' sigs.k8s.io/kwok/cmd/kwok
  local stages module
  stages=$cache/parts/kwok/stages
  [[ ! -d $stages ]] || return 0
  module=$(module_dir kwok sigs.k8s.io/kwok)
  mkdir -p "$stages.new"
  cp "$module"/kustomize/stage/{node/fast/node-initialize,node/heartbeat/node-heartbeat}.yaml \
    "$module"/kustomize/stage/pod/fast/pod-{ready,complete,delete}.yaml "$stages.new/"
  chmod -R u+w "$stages.new"
  mv "$stages.new" "$stages"
}

build_node_programs() {
  need_packages gcc libc6-dev libseccomp-dev pkg-config
  build_kubernetes
  go_part etcd -ldflags '-s -w' go.etcd.io/etcd/server/v3
  go_part coredns -ldflags '-s -w' github.com/coredns/coredns
  local containerd=github.com/containerd/containerd/v2 plugins=github.com/containernetworking/plugins/plugins
  go_part containerd -tags 'no_aufs no_zfs no_btrfs no_devmapper' \
    -ldflags "-s -w -X $containerd/version.Version=$(version_of containerd $containerd)" \
    $containerd/cmd/{containerd,ctr,containerd-shim-runc-v2}
  # runc enters namespaces in C; without seccomp no pod starts.
  CGO_ENABLED=1 go_part runc -ldflags '-s -w -extldflags -static' -tags 'netgo osusergo seccomp' github.com/opencontainers/runc
  go_part cni-plugins -ldflags '-s -w' $plugins/{main/ptp,main/loopback,ipam/host-local,meta/portmap}
  go_part local-path-provisioner -ldflags '-s -w' github.com/rancher/local-path-provisioner
}

# The user's own kind and helm do; otherwise they are built, and `env` puts them on the PATH.
ensure_tools() {
  local tool
  for tool in kind helm; do
    [[ -z $(found_elsewhere "$tool") ]] || continue
    "build_$tool"
    ln -sfn "$cache/parts/$tool/$tool" "$cache/bin/$tool"
  done
}

found_elsewhere() { # PROGRAM: prints where PATH has it, $cache/bin aside
  type -ap "$1" | grep -vxF "$cache/bin/$1" | head -n 1 || true
}
