# tests/packaging carries out these very RUN steps without a container engine; keep each a plain shell command.
ARG PYTHON=python:3.13-slim-trixie

FROM ${PYTHON} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY constraints.txt constraints-build.txt ./
RUN python -m venv /build && /build/bin/pip install --quiet --require-hashes -r constraints-build.txt
RUN python -m venv /opt/penstock && /opt/penstock/bin/pip install --quiet --require-hashes -r constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel .
RUN /opt/penstock/bin/pip install --quiet --no-deps --no-index /wheel/penstock-*.whl && /opt/penstock/bin/pip check

FROM ${PYTHON}
ENV PATH=/opt/penstock/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TZ=UTC
COPY --from=build /opt/penstock /opt/penstock
USER 65532:65532
RUN penstock --version
ENTRYPOINT ["penstock"]
