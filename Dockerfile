# Three images, one way to make them: tools.images.rootfs assembles a folder, and the folder is the image.
# docs/images.md says what is in it, and how to build where no container engine runs.

# Python 3.11.16 and a compiler, of 19 September 2026.
FROM python:3.11-bookworm@sha256:b99029c95d3d37fb1e4e76d287f7984373dca77c665885986e31b2c95260c13c AS build
WORKDIR /source
COPY tools/images/generator.txt tools/images/generator.txt
# An operator's own index comes in as pip's configuration; it stays in no layer.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/tools \
    && /opt/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes \
       --only-binary :all: --requirement tools/images/generator.txt
COPY . .
ARG SOURCE_DATE_EPOCH=0

FROM build AS webhook-files
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/tools/bin/python -m tools.images.rootfs webhook /rootfs

FROM build AS verifier-files
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/tools/bin/python -m tools.images.rootfs verifier /rootfs

FROM build AS sidecar-files
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/tools/bin/python -m tools.images.rootfs sidecar /rootfs

FROM scratch AS webhook
LABEL org.opencontainers.image.title="morphisms/webhook" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=webhook-files /rootfs /
USER 65532:65532
ENTRYPOINT ["/usr/bin/morphisms"]

FROM scratch AS verifier
LABEL org.opencontainers.image.title="morphisms/verifier" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=verifier-files /rootfs /
USER 65532:65532
ENTRYPOINT ["/usr/bin/morphisms"]

FROM scratch AS sidecar
LABEL org.opencontainers.image.title="morphisms/sidecar" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=sidecar-files /rootfs /
USER 65532:65532
ENTRYPOINT ["/usr/bin/morphisms-init"]
