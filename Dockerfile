# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --profile dist --locked --bin doorward \
 && cp target/dist/doorward /doorward

FROM debian:bookworm-slim
RUN groupadd --system --gid 10001 doorward \
 && useradd --system --uid 10001 --gid doorward --no-create-home --shell /usr/sbin/nologin doorward \
 && install --directory --owner=doorward --group=doorward --mode=0700 /data
COPY --from=build /doorward /usr/local/bin/doorward

# In production Doorward refuses to listen in plain text on anything but its own machine, unless it is
# told that a TLS proxy stands in front: a container is reached only through its network, so say so with
# DOORWARD__HTTP__BEHIND_PROXY=true once it is true. Also needed: DOORWARD__PUBLIC_URL (https://…) and
# DOORWARD__TOKENS__KEY_FILE or DOORWARD__TOKENS__KEY, and one run of `doorward migrate` before the
# first start.
ENV DOORWARD__ENVIRONMENT=production \
    DOORWARD__HTTP__LISTEN=0.0.0.0:8080 \
    DOORWARD__DATABASE__SQLITE__PATH=/data/doorward.db

USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["doorward", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["doorward"]
CMD ["serve"]
