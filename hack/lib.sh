# shellcheck shell=bash
# Functions that several scripts use. Sourced by them.

# Helm without its warning that the chart's custom resource definitions are a symbolic link.
quiet_helm() { helm "$@" 2> >(grep -v 'symbolic link' >&2); }
