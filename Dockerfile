# The command `claims`, built for release.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches keep a rebuild short; the binary is copied out because a cache is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package claims-cli --bin claims \
    && cp target/release/claims /usr/local/bin/claims

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /srv/claims --create-home claims \
    && install --directory --owner claims --group claims /var/lib/claims
COPY --from=build /usr/local/bin/claims /usr/local/bin/claims
COPY --from=build /src/mappings /srv/claims/mappings
USER claims
# `claims.toml` is looked for here.
WORKDIR /srv/claims
VOLUME /var/lib/claims
EXPOSE 8080 9101 9102 9103
ENTRYPOINT ["claims"]
CMD ["--help"]
