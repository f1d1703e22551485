# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with ../cluster
# Builds the node's image and the images in it without a container registry. Sourced by ../cluster.

kwok_image=kwok:$(version_of kubernetes sigs.k8s.io/kwok)
local_path_image=local-path-provisioner:$(version_of kubernetes github.com/rancher/local-path-provisioner)

program_image() { # IMAGE PROGRAM PATH: an image with a single static program
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
  step_done
}

# The default image of sandboxes. Without a registry it is Debian bookworm's Python, which is 3.11 too.
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
  step_done
}

# For tests: an image without Python and with an entrypoint. Without a registry it is Debian bookworm's Redis, which is 7 too.
ensure_redis_image() {
  pull "$redis_image" && return
  rootfs redis redis-server
  step "image $redis_image"
  docker import -c 'ENTRYPOINT ["redis-server"]' -c 'CMD ["--protected-mode", "no"]' -c 'WORKDIR /data' \
    -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$cache/rootfs/redis/root.tar" "$redis_image" > /dev/null
  step_done
}

# All Kubernetes programs in one image; the images that kubeadm names differ from it only in their entrypoint, so they share its
# layer. kube-proxy needs iptables, nft and kmod: they come from the node's root file system, with their libraries.
kubernetes_image() { # IMAGE
  local dir root library program programs
  dir=$(mktemp -d -p "$cache/tmp") root=$(mktemp -d -p "$cache/tmp")
  chmod 0755 "$dir"
  tar -C "$root" -xf "$cache/rootfs/node/root.tar" ./usr ./etc/alternatives ./bin ./sbin ./lib ./lib64
  programs=(/usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi /usr/sbin/nft /usr/bin/kmod)
  {
    printf '%s\n' /bin /sbin /lib /lib64 "${programs[@]}" /etc/alternatives /usr/lib/x86_64-linux-gnu/xtables
    (cd "$root" && find usr/sbin -maxdepth 1 -type l \( -name 'ip*tables*' -o -name 'xtables*' -o -name modprobe \) -printf '/%p\n')
    # Programs ask for libraries by names that are links, so both the links and the files are needed. (/lib is a link to /usr/lib.)
    # The matches of iptables are libraries that need libraries themselves.
    chroot "$root" bash -c 'ldd "$@" /usr/lib/x86_64-linux-gnu/xtables/*.so' - "${programs[@]}" | grep -o '/lib[^ ]*' | grep -v ':$' | sort -u | while read -r library; do
      printf '/usr%s\n' "$library"
      chroot "$root" readlink -f "$library"
    done
  } | sort -u | sed 's#^/##' > "$dir.list"
  tar -C "$root" -T "$dir.list" -c | tar -C "$dir" -x
  install -D -m 0755 "$cache/parts/kubernetes/kubernetes" "$dir/usr/local/bin/kubernetes"
  for program in "${kubernetes_programs[@]}"; do ln -s kubernetes "$dir/usr/local/bin/$program"; done
  mkdir -p "$dir/tmp" "$dir/run" "$dir/var"
  tar -C "$dir" -c . | docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$1" > /dev/null
  rm -rf "$dir" "$dir.list" "$root"
}

kubernetes_program_image() { # IMAGE BASE: the program has the image's name
  printf 'FROM %s\nENTRYPOINT ["/usr/local/bin/%s"]\n' "$2" "$(basename "${1%:*}")" \
    | DOCKER_BUILDKIT=0 docker build -q -t "$1" - > "$cache/build-image.log" 2>&1 \
    || { tail -n 20 "$cache/build-image.log" >&2; die "building the image $1 failed"; }
}

# Sets node_image: kind's own where a registry has it, otherwise one that is built here. Makes the Python image too.
ensure_images() {
  node_image=$(kind_node_image)
  own_node_image=
  if pull "$node_image"; then
    ensure_python_image
    return
  fi
  own_node_image=1
  need_packages debootstrap gcc libc6-dev libseccomp-dev pkg-config
  # debootstrap mostly waits for the network and for dpkg, so it runs beside the compiler.
  (
    step_name=''
    rootfs node systemd systemd-sysv dbus ca-certificates iptables ipset nftables iproute2 ethtool socat conntrack \
      ebtables util-linux mount kmod procps jq curl hostname rsync libseccomp2 tar pigz bash e2fsprogs
    ensure_python_image
  ) 9>&- &
  local file_systems=$!
  # On failure wait as well: debootstrap must not go on without this script.
  trap wait EXIT
  build_node_programs
  wait "$file_systems" || die 'building the root file systems failed'
  trap - EXIT
  ln -sfn "$cache/parts/kubernetes/kubectl" "$cache/bin/kubectl"
  local key
  key=$(hash_of "$(cat "$cache"/parts/{kubernetes,etcd,coredns,containerd,runc,cni-plugins,local-path-provisioner}/.key \
    "$cache/rootfs/node/.key" "$here"/node/* "$here/manifests/local-path-storage.yaml" "$here/lib/images.sh" "$here/go/kind/go.mod")" \
    "$(image_id "$python_image")")
  node_image=$node_repository:$kubernetes_version-$key
  have_image "$node_image" || build_node_image
}

kind_node_image() { # prints the image that this version of kind was released with, as its source names it
  local known
  known=$cache/kind-node-image-$(version_of kind sigs.k8s.io/kind)
  if [[ ! -s $known ]]; then
    sed -n 's/^const Image = "\(.*\)"$/\1/p' "$(module_dir kind sigs.k8s.io/kind)/pkg/apis/config/defaults/image.go" > "$known"
  fi
  cat "$known"
}

build_node_image() {
  step "node image $node_image"
  local parts=$cache/parts context image pause='' images=() kind_files kubernetes=sandbox-operator-kubernetes
  context=$(mktemp -d -p "$cache/tmp")
  mkdir -p "$context"/{bin,images,manifests}

  kubernetes_image "$kubernetes"
  # kubeadm prints the names and versions that it expects.
  while read -r image; do
    images+=("$image")
    case $image in
      */kube-*) kubernetes_program_image "$image" "$kubernetes" ;;
      */etcd:*) program_image "$image" "$parts/etcd/server" /usr/local/bin/etcd ;;
      */coredns:*) program_image "$image" "$parts/coredns/coredns" /coredns ;;
      */pause:*)
        pause=$image
        gcc -Os -Wall -Wextra -static -s -o "$context/pause" "$here/node/pause.c"
        program_image "$image" "$context/pause" /pause
        ;;
      *) die "kubeadm expects an image that this script cannot build: $image" ;;
    esac
  done < <("$parts/kubernetes/kubeadm" config images list --kubernetes-version "$kubernetes_version" 2> /dev/null)
  images+=("$local_path_image")
  program_image "$local_path_image" "$parts/local-path-provisioner/local-path-provisioner" /usr/local/bin/local-path-provisioner
  docker save -o "$context/images/control-plane.tar" "${images[@]}"
  # Not *.tar: the import at boot leaves it out.
  docker save -o "$context/images/later" "$python_image"
  # In this machine's Docker they would hide the real images of these names.
  docker rmi "${images[@]}" "$kubernetes" > /dev/null

  cp "$parts"/containerd/{containerd,ctr,containerd-shim-runc-v2} "$parts/kubernetes/kubernetes" \
    "$parts"/runc/runc "$parts"/cni-plugins/{ptp,loopback,host-local,portmap} "$context/bin/"
  kind_files=$(module_dir kind sigs.k8s.io/kind)/images/base/files
  cp -r "$kind_files" "$context/files"
  chmod -R u+w "$context/files"
  cp "$here"/node/{Dockerfile,oci-runtime,import-images.service,10-kind.conflist} "$context/"
  sed "s/VERSION\$/${local_path_image#*:}/" "$here/manifests/local-path-storage.yaml" > "$context/manifests/default-storage.yaml"

  docker import "$cache/rootfs/node/root.tar" sandbox-operator-node-root > /dev/null
  DOCKER_BUILDKIT=0 docker build -q -t "$node_image" --build-arg "KUBERNETES_VERSION=$kubernetes_version" \
    --build-arg "PAUSE_IMAGE=$pause" "$context" > "$cache/build-node-image.log" 2>&1 \
    || { tail -n 20 "$cache/build-node-image.log" >&2; die "building the node image failed"; }
  rm -rf "$context"
  step_done
  # Remove older images, unless a cluster still uses them.
  docker image ls --format '{{.Repository}}:{{.Tag}}' "$node_repository" | grep -vxF "$node_image" \
    | xargs -r docker rmi > /dev/null 2>&1 || true
}
