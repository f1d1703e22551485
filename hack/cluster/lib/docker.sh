# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with ../cluster
# Docker, Debian packages and root file systems. Sourced by ../cluster.

dockerd_pid_file=$cache/dockerd.pid

can_install() { [[ $(id -u) == 0 ]] && command -v apt-get > /dev/null; }

need_packages() { # PACKAGE... (Debian's names): installs the missing ones
  local package missing=()
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2> /dev/null | grep -q '^ii' || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  can_install || die "missing Debian packages: ${missing[*]}. Install them, or run as root on Debian"
  step "install ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    > "$cache/apt.log" 2>&1 || die "apt-get failed, see $cache/apt.log"
  step_done
}

our_dockerd() { # succeeds if a dockerd that this script started is running
  local pid
  pid=$(cat "$dockerd_pid_file" 2> /dev/null) || return 1
  [[ $(cat "/proc/$pid/comm" 2> /dev/null) == dockerd ]]
}

has_sys_resource() {
  local bounding
  bounding=$(awk '/^CapBnd:/ {print $2}' /proc/self/status)
  (((16#$bounding >> 24) & 1)) # bit number: see capabilities(7)
}

docker_answers() { timeout 20 docker info > /dev/null 2>&1; }

ensure_docker() {
  docker_answers && return
  # A dockerd that this script started may be starting or stopping.
  for _ in {1..60}; do
    our_dockerd || break
    sleep 0.5
    ! docker_answers || return 0
  done
  if ! can_install; then
    die "Docker does not answer ('docker info' fails). Start it, or give your user access to it, or use a cluster you have:
  SANDBOX_OPERATOR_EXISTING_CLUSTER=1 KUBECONFIG=... $0 up"
  fi
  if ! type dockerd docker > /dev/null 2>&1; then
    need_packages docker.io containerd runc iptables
  fi
  step "start dockerd (log: $cache/dockerd.log)"
  local options=()
  if ! has_sys_resource; then
    need_packages jq
    install -m 0755 "$here/node/oci-runtime" "$cache/oci-runtime"
    ln -sfn "$(command -v runc)" "$cache/oci-runtime.real"
    options=(--add-runtime "no-sys-resource=$cache/oci-runtime" --default-runtime no-sys-resource)
  fi
  our_dockerd || rm -f "$dockerd_pid_file"
  # It must outlive this script and its terminal, and must not hold the lock (file descriptor 9).
  setsid dockerd --pidfile "$dockerd_pid_file" "${options[@]}" > "$cache/dockerd.log" 2>&1 < /dev/null 9>&- &
  for _ in {1..120}; do
    docker_answers && return
    sleep 0.5
  done
  tail -n 5 "$cache/dockerd.log" >&2
  die "dockerd did not start, see $cache/dockerd.log"
}

stop_docker() {
  our_dockerd || return 0
  step "stop dockerd"
  local pid
  pid=$(cat "$dockerd_pid_file")
  kill "$pid"
  for _ in {1..60}; do
    our_dockerd || return 0
    sleep 0.5
  done
  die "dockerd (process $pid) does not stop"
}

have_image() { docker image inspect "$1" > /dev/null 2>&1; }

image_id() { docker image inspect -f '{{.Id}}' "$1"; }

# Asks the registry first, with a short timeout: without a registry a pull can hang for minutes. The file no-registry remembers that none
# answers until `down --purge`.
pull() { # IMAGE: succeeds if the image is present afterwards
  have_image "$1" && return
  [[ ! -e $cache/no-registry ]] || return 1
  if ! timeout 10 docker manifest inspect "$1" > /dev/null 2>&1; then
    date > "$cache/no-registry"
    return 1
  fi
  step "pull $1"
  docker pull -q "$1" > /dev/null
  step_done
}

debian_mirror() {
  local mirror=
  if grep -q '^ID=debian$' /etc/os-release; then
    # shellcheck disable=SC2016 # apt's variable, not the shell's
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1 || true)
  fi
  printf '%s\n' "${mirror:-http://deb.debian.org/debian}"
}

# Writes a Debian root file system to $cache/rootfs/NAME/root.tar.
rootfs() { # NAME PACKAGE...
  local name=$1 out=$cache/rootfs/$1 key dir
  shift
  key=$(hash_of bookworm "$@")
  is_fresh "$out" "$key" && return
  [[ $(id -u) == 0 ]] || die "no container registry answers, and building images without one needs root (debootstrap)"
  need_packages debootstrap
  step "root file system: $name"
  dir=$(mktemp -d -p "$cache/tmp")
  chmod 0755 "$dir"
  debootstrap --variant=minbase --include="$(IFS=,; printf '%s' "$*")" bookworm "$dir" "$(debian_mirror)" \
    > "$cache/debootstrap-$name.log" 2>&1 || die "debootstrap failed, see $cache/debootstrap-$name.log"
  rm -rf "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/* "$dir"/etc/apt/sources.list "$dir"/etc/resolv.conf
  rm -rf "$out" && mkdir -p "$out"
  tar -C "$dir" --one-file-system -cf "$out/root.tar" .
  rm -rf "$dir"
  mark_fresh "$out" "$key"
  step_done
}
