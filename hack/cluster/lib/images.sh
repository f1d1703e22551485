# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with ../cluster
# The node's image and what it carries, made without a container registry: sourced by ../cluster.

kwok_image=kwok:$(version_of kwok sigs.k8s.io/kwok)
local_path_version=$(version_of local-path-provisioner github.com/rancher/local-path-provisioner)

# An image of a single static program.
program_image() { # IMAGE PROGRAM PATH
  local dir
  dir=$(mktemp -d -p "$cache/tmp")
  chmod 0755 "$dir"
  install -D -m 0755 "$2" "$dir$3"
  tar -C "$dir" -c . | docker import -c "ENTRYPOINT [\"$3\"]" - "$1" > /dev/null
  rm -rf "$dir"
}

ensure_kwok_image() {
  build_kwok
  local key
  key=$(cat "$cache/parts/kwok/.key")
  is_fresh "$cache/kwok-image" "$key" && have_image "$kwok_image" && return
  step "image $kwok_image"
  program_image "$kwok_image" "$cache/parts/kwok/kwok" /usr/local/bin/kwok
  mkdir -p "$cache/kwok-image"
  mark_fresh "$cache/kwok-image" "$key"
}

# The sandboxes' default image. Without a registry: Debian bookworm's own Python, which is a 3.11.
ensure_python_image() {
  pull "$python_image" && return
  rootfs python python3 python3-pip ca-certificates curl procps
  step "image $python_image"
  local dir
  dir=$(mktemp -d -p "$cache/tmp")
  mkdir -p "$dir/usr/bin" "$dir/etc"
  chmod 0755 "$dir" "$dir/usr" "$dir/usr/bin" "$dir/etc"
  ln -s python3 "$dir/usr/bin/python"
  cp "$cache/rootfs/python/root.tar" "$dir.tar"
  tar -C "$dir" --owner 0 --group 0 -rf "$dir.tar" ./usr/bin/python
  docker import -c 'CMD ["python3"]' -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    "$dir.tar" "$python_image" > /dev/null
  rm -rf "$dir" "$dir.tar"
}

# An image that is not Python's, with an entrypoint of its own. Without a registry: Debian bookworm's own Redis, which is a 7.
ensure_redis_image() {
  pull "$redis_image" && return
  rootfs redis redis-server
  step "image $redis_image"
  docker import -c 'ENTRYPOINT ["redis-server"]' -c 'CMD ["--protected-mode", "no"]' -c 'WORKDIR /data' \
    -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$cache/rootfs/redis/root.tar" "$redis_image" > /dev/null
}

# kube-proxy needs iptables, nft and kmod beside itself: taken from the node's root file system, with their libraries.
kube_proxy_image() { # IMAGE
  local dir root library programs
  dir=$(mktemp -d -p "$cache/tmp") root=$(mktemp -d -p "$cache/tmp")
  chmod 0755 "$dir"
  tar -C "$root" -xf "$cache/rootfs/node/root.tar" ./usr ./etc/alternatives ./bin ./sbin ./lib ./lib64
  programs=(/usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi /usr/sbin/nft /usr/bin/kmod)
  {
    printf '%s\n' /bin /sbin /lib /lib64 "${programs[@]}" /etc/alternatives /usr/lib/x86_64-linux-gnu/xtables
    (cd "$root" && find usr/sbin -maxdepth 1 -type l \( -name 'ip*tables*' -o -name 'xtables*' -o -name modprobe \) -printf '/%p\n')
    # The names that programs ask for are links: those and the files. (/lib is a link to /usr/lib.)
    # The matches of iptables are libraries that need libraries.
    chroot "$root" bash -c 'ldd "$@" /usr/lib/x86_64-linux-gnu/xtables/*.so' - "${programs[@]}" | grep -o '/lib[^ ]*' | grep -v ':$' | sort -u | while read -r library; do
      printf '/usr%s\n' "$library"
      chroot "$root" readlink -f "$library"
    done
  } | sort -u | sed 's#^/##' > "$dir.list"
  tar -C "$root" -T "$dir.list" -c | tar -C "$dir" -x
  install -D -m 0755 "$cache/parts/kubernetes/kube-proxy" "$dir/usr/local/bin/kube-proxy"
  mkdir -p "$dir/tmp" "$dir/run" "$dir/var"
  tar -C "$dir" -c . | docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c 'ENTRYPOINT ["/usr/local/bin/kube-proxy"]' - "$1" > /dev/null
  rm -rf "$dir" "$dir.list" "$root"
}

# Sets node_image to the image for kind: kind's own where a registry has it, otherwise ours.
ensure_node_image() {
  node_image=$(kind_node_image)
  own_node_image=
  ! pull "$node_image" || return 0
  own_node_image=1
  rootfs node systemd systemd-sysv dbus ca-certificates iptables ipset nftables iproute2 ethtool socat conntrack \
    ebtables util-linux mount kmod procps jq curl hostname rsync libseccomp2 tar pigz bash e2fsprogs
  build_node_programs
  ln -sfn "$cache/parts/kubernetes/kubectl" "$cache/bin/kubectl"
  local key
  key=$(hash_of "$(cat "$cache"/parts/{kubernetes,etcd,coredns,containerd,runc,cni-plugins,local-path-provisioner}/.key \
    "$cache/rootfs/node/.key" "$here"/node/* "$here/manifests/local-path-storage.yaml" "$here/lib/images.sh" "$here/go/kind/go.mod")" \
    "$(image_id "$python_image")" "$(image_id "$redis_image")" "$(image_id "$kwok_image")")
  node_image=$node_repository:$kubernetes_version-$key
  have_image "$node_image" || build_node_image
}

kind_node_image() { # the one that the kind of go/kind was released with; asked of its source once per version
  local known
  known=$cache/kind-node-image-$(version_of kind sigs.k8s.io/kind)
  if [[ ! -s $known ]]; then
    sed -n 's/^const Image = "\(.*\)"$/\1/p' "$(module_dir kind sigs.k8s.io/kind)/pkg/apis/config/defaults/image.go" > "$known"
  fi
  cat "$known"
}

build_node_image() {
  step "node image $node_image"
  local parts=$cache/parts context image pause='' images=() kind_files
  context=$(mktemp -d -p "$cache/tmp")
  mkdir -p "$context"/{bin,images,manifests}

  # kubeadm knows which names it wants.
  while read -r image; do
    images+=("$image")
    case $image in
      */kube-proxy:*) kube_proxy_image "$image" ;;
      */kube-*) program_image "$image" "$parts/kubernetes/$(basename "${image%:*}")" "/usr/local/bin/$(basename "${image%:*}")" ;;
      */etcd:*) program_image "$image" "$parts/etcd/server" /usr/local/bin/etcd ;;
      */coredns:*) program_image "$image" "$parts/coredns/coredns" /coredns ;;
      */pause:*)
        pause=$image
        gcc -Os -Wall -Wextra -static -s -o "$context/pause" "$here/node/pause.c"
        program_image "$image" "$context/pause" /pause
        ;;
      *) die "kubeadm wants an image that we do not know: $image" ;;
    esac
  done < <("$parts/kubernetes/kubeadm" config images list --kubernetes-version "$kubernetes_version" 2> /dev/null)
  images+=("local-path-provisioner:$local_path_version")
  program_image "local-path-provisioner:$local_path_version" "$parts/local-path-provisioner/local-path-provisioner" \
    /usr/local/bin/local-path-provisioner
  docker save -o "$context/images/control-plane.tar" "${images[@]}"
  # Under another name than *.tar: these are not waited for at boot.
  docker save -o "$context/images/later" "$python_image" "$redis_image" "$kwok_image"
  # They would shadow the real ones in this machine's Docker.
  docker rmi "${images[@]}" > /dev/null

  cp "$parts"/containerd/{containerd,ctr,containerd-shim-runc-v2} "$parts"/kubernetes/{kubeadm,kubelet,kubectl} \
    "$parts"/runc/runc "$parts"/cni-plugins/{ptp,loopback,host-local,portmap} "$context/bin/"
  kind_files=$(module_dir kind sigs.k8s.io/kind)/images/base/files
  cp -r "$kind_files" "$context/files"
  chmod -R u+w "$context/files"
  cp "$here"/node/{Dockerfile,oci-runtime,import-images.service,10-kind.conflist} "$context/"
  sed "s/VERSION\$/$local_path_version/" "$here/manifests/local-path-storage.yaml" > "$context/manifests/default-storage.yaml"

  docker import "$cache/rootfs/node/root.tar" sandbox-operator-node-root > /dev/null
  DOCKER_BUILDKIT=0 docker build -q -t "$node_image" --build-arg "KUBERNETES_VERSION=$kubernetes_version" \
    --build-arg "PAUSE_IMAGE=$pause" "$context" > "$cache/build-node-image.log" 2>&1 \
    || { tail -n 20 "$cache/build-node-image.log" >&2; die "building the node image failed"; }
  rm -rf "$context"
  # Superseded ones, unless a cluster still uses them.
  docker image ls --format '{{.Repository}}:{{.Tag}}' "$node_repository" | grep -vxF "$node_image" \
    | xargs -r docker rmi > /dev/null 2>&1 || true
}
