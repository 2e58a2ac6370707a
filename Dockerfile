# Three images, one way to make them: tools.images.rootfs assembles folders, and the folders are the image. The first
# holds what the image's lock decides and keeps its layer while our modules change; the second holds our modules.
# docs/images.md says what is in it, and how to build where no container engine runs.

# Python 3.11.16 and a compiler, of 19 September 2026.
FROM python:3.11-bookworm@sha256:b99029c95d3d37fb1e4e76d287f7984373dca77c665885986e31b2c95260c13c AS tools
WORKDIR /source
COPY tools/images/generator.txt tools/images/generator.txt
# An operator's own index comes in as pip's configuration; it stays in no layer.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/tools \
    && /opt/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes \
       --only-binary :all: --requirement tools/images/generator.txt
COPY tools/__init__.py tools/__init__.py
COPY tools/images tools/images

FROM tools AS webhook-foundation
COPY requirements/webhook.txt requirements/webhook.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/tools/bin/python -m tools.images.rootfs foundation webhook /rootfs /opt/environment

FROM webhook-foundation AS webhook-files
COPY . .
ARG SOURCE_DATE_EPOCH=0
RUN /opt/tools/bin/python -m tools.images.rootfs own webhook /own /opt/environment

FROM tools AS verifier-foundation
COPY requirements/verifier.txt requirements/verifier.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/tools/bin/python -m tools.images.rootfs foundation verifier /rootfs /opt/environment

FROM verifier-foundation AS verifier-files
COPY . .
ARG SOURCE_DATE_EPOCH=0
RUN /opt/tools/bin/python -m tools.images.rootfs own verifier /own /opt/environment

FROM tools AS sidecar-foundation
COPY requirements/sidecar.txt requirements/sidecar.txt
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/tools/bin/python -m tools.images.rootfs foundation sidecar /rootfs /opt/environment

FROM sidecar-foundation AS sidecar-files
COPY . .
ARG SOURCE_DATE_EPOCH=0
RUN /opt/tools/bin/python -m tools.images.rootfs own sidecar /own /opt/environment

FROM scratch AS webhook
LABEL org.opencontainers.image.title="morphisms/webhook" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=webhook-foundation /rootfs /
COPY --from=webhook-files /own /
USER 65532:65532
ENTRYPOINT ["/usr/bin/morphisms"]

FROM scratch AS verifier
LABEL org.opencontainers.image.title="morphisms/verifier" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=verifier-foundation /rootfs /
COPY --from=verifier-files /own /
USER 65532:65532
ENTRYPOINT ["/usr/bin/morphisms"]

FROM scratch AS sidecar
LABEL org.opencontainers.image.title="morphisms/sidecar" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=sidecar-foundation /rootfs /
COPY --from=sidecar-files /own /
USER 65532:65532
ENTRYPOINT ["/usr/bin/morphisms-init"]
