# Two images from one file: `web` without torch, `worker` with it.
FROM python:3.11-slim-bookworm AS base
WORKDIR /srv/calibrant
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 CALIBRANT_DATA_DIR=/data
RUN useradd --create-home --uid 10001 calibrant && install -d -o calibrant -g calibrant /data
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY app app
COPY workers workers
COPY templates templates
COPY static static
COPY migrations migrations
COPY demo demo

FROM base AS web
# The lock as constraints: only what the web process needs is installed, at the locked versions.
RUN pip install --constraint requirements.lock --editable .
USER calibrant
EXPOSE 8000
CMD ["sh", "-c", "calibrant migrate && exec uvicorn app.main:create_app --factory --host 0.0.0.0 --port 8000"]

FROM base AS worker
RUN pip install --constraint requirements.lock --editable '.[worker]'
USER calibrant
CMD ["celery", "--app", "workers.celery_app", "worker", "--loglevel", "INFO", "--concurrency", "1"]
