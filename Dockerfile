# All four programs in one small image: nothing in it but them, the libraries they need, the
# certificate authorities, and a busybox for health checks and a look inside.

FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends busybox-static ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cargo build --release --locked --bins \
    && scripts/image-root.sh /image \
        target/release/kubeleet-api \
        target/release/kubeleet-scheduler \
        target/release/kubeleet \
        target/release/leet

FROM scratch
COPY --from=build /image/ /
ENV PATH=/usr/local/bin:/bin
# Not root. Only an agent needs more: whoever may open Docker's socket.
USER 65532:65532
EXPOSE 8080
CMD ["leet", "--help"]
