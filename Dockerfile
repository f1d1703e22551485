# The binary is static and contains TLS root certificates; the cluster's come with the ServiceAccount. The image needs nothing else.
FROM scratch
COPY sandbox-operator /sandbox-operator
USER 65532:65532
# Makes glibc's allocator return freed memory to the system after a burst. By default each thread's arena keeps it.
ENV MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=131072 MALLOC_TRIM_THRESHOLD_=131072
ENTRYPOINT ["/sandbox-operator"]
