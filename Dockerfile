# The binary is static and brings its own TLS roots (the cluster's come with the ServiceAccount): nothing else is needed.
FROM scratch
COPY sandbox-operator /sandbox-operator
USER 65532:65532
ENTRYPOINT ["/sandbox-operator"]
