# The engine with its dashboard. The data folder is a volume; ALGO_SECRET_KEY must be set, since others can connect:
#   docker build -t algo-trader .
#   docker run -p 127.0.0.1:8000:8000 -v algo-trader:/app/data -e ALGO_SECRET_KEY=... algo-trader
FROM python:3.13-slim AS build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY Makefile package.json package-lock.json .npmrc ./
COPY requirements requirements
RUN make charts

FROM python:3.13-slim
ENV PYTHONUNBUFFERED=1 PATH=/app/.venv/bin:$PATH \
    ALGO_WEB__HOST=0.0.0.0 ALGO_LOG_FORMAT=json
RUN useradd --create-home --uid 10001 trader && mkdir -p /app/data && chown trader /app/data
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY . .
COPY --from=build /app/static/vendor static/vendor
USER trader
VOLUME /app/data
EXPOSE 8000
# Positions keep their stops at the broker, but an orderly end takes up to 10 seconds.
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
    "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:%s/api/health' % os.environ.get('ALGO_WEB__PORT', '8000'), timeout=5)"]
ENTRYPOINT ["sh", "-c", "python manage.py migrate --no-input --verbosity 0 && python manage.py ensureadmin && exec python manage.py runengine \"$@\"", "runengine"]
