# The filter as an OCI image, the way Istio and Envoy Gateway load it: one file, /plugin.wasm.
#
#   docker build -t registry.example.com/x402-envoy:0.1.0 .
#   docker build -t x402-gateway --target gateway .     # Envoy with the filter in it

FROM rust:1.95-slim AS build
# The image's own toolchain, whatever rust-toolchain.toml says: no second one is downloaded.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN rustup target add wasm32-wasip1
WORKDIR /x402
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
COPY secp256k1 secp256k1
# A member of the workspace, without which its manifest is not read. It is not built.
COPY ledger ledger
RUN cargo build --release --locked --lib --target wasm32-wasip1 \
 && install -m 644 target/wasm32-wasip1/release/x402_envoy.wasm /built.wasm

FROM node:20-slim AS optimise
WORKDIR /x402
COPY stack/optimise.mjs stack/
COPY --from=build /built.wasm /built.wasm
RUN node stack/optimise.mjs /built.wasm /plugin.wasm

FROM envoyproxy/envoy:v1.40-latest AS gateway
COPY --from=optimise /plugin.wasm /etc/envoy/x402_envoy.wasm
COPY envoy/envoy.yaml /etc/envoy/envoy.yaml

FROM scratch AS plugin
LABEL org.opencontainers.image.title="x402-envoy" \
      org.opencontainers.image.description="An Envoy filter that makes any HTTP backend payable with x402" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=optimise /plugin.wasm /plugin.wasm
