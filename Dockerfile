# The image of sluice: one static binary and nothing else. It has no shell and no libc, and runs as
# nobody in particular. It has no CA certificates either: a pod is given the API server's with its
# service account. Only a kubeconfig without `certificate-authority` wants some: mount them, and name
# the file in SSL_CERT_FILE.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=0.1.0 \
#       --build-arg REVISION=$(git rev-parse HEAD) \
#       --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) --tag sluice:0.1.0 .
#
# `make image` puts the binary of `make build` into the same image, without a registry: with
# BINARY=prebuilt nothing needs the first stage.

ARG BINARY=build

# On the builder's own architecture, whatever is built: an emulator would take an hour.
FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95.0-slim-bookworm AS build
ARG TARGETARCH
RUN case "$TARGETARCH" in \
        amd64) echo x86_64 ;; \
        arm64) echo aarch64 ;; \
        *) echo "no recipe for TARGETARCH=$TARGETARCH: there are amd64 and arm64" >&2; exit 1 ;; \
    esac > /arch
# What links, and the libc that is linked in.
RUN libc=libc6-dev; \
    test "$(dpkg --print-architecture)" = "$TARGETARCH" || libc="libc6-dev-$TARGETARCH-cross"; \
    apt-get update \
    && apt-get install --yes --no-install-recommends make "gcc-$(tr _ - < /arch)-linux-gnu" "$libc" \
    && rustup target add "$(cat /arch)-unknown-linux-gnu"
WORKDIR /src
COPY . .
ENV CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
RUN target="$(cat /arch)-unknown-linux-gnu" \
    && make build TARGET="$target" \
    && install -D "target/$target/release/sluice" /binary/sluice

FROM scratch AS prebuilt
COPY target/release/sluice /binary/sluice

FROM ${BINARY} AS binary

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sluice" \
    org.opencontainers.image.description="An SNI router for Kubernetes: passes TLS connections on unopened, or serves the TLS itself where a route says so" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
COPY --from=binary --chown=0:0 --chmod=0555 /binary/sluice /sluice
USER 65532:65532
EXPOSE 8443 9901
STOPSIGNAL SIGTERM
ENTRYPOINT ["/sluice"]
CMD ["run"]
