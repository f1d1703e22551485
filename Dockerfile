# The binary is static and brings its own TLS roots (the cluster's come with the ServiceAccount): nothing else is needed.
FROM scratch
COPY sandbox-operator /sandbox-operator
USER 65532:65532
# What glibc's allocator has freed goes back to the system, also after a burst: by default each thread's arena keeps it.
ENV MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=131072 MALLOC_TRIM_THRESHOLD_=131072
ENTRYPOINT ["/sandbox-operator"]
