# The local chain, the facilitator and the backend of the demo: one image, three commands.

FROM node:20-slim
WORKDIR /x402/stack
# Packages first: they change less often than the programs.
COPY stack/package.json stack/package-lock.json stack/.npmrc stack/install.mjs stack/anvil.mjs ./
RUN node install.mjs anvil stack
COPY stack/*.mjs ./
COPY stack/contracts contracts
# Compiles the contracts once, so that the chain starts at once.
RUN node -e 'import("./contracts.mjs").then(contracts => contracts.compiled(console.error))'
