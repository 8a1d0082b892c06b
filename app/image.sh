#!/bin/sh
# Entry point of the image: runs the server or, with "health", a health check.
set -eu
export PYTHONDONTWRITEBYTECODE=1 APP_HOST="${APP_HOST:-0.0.0.0}" APP_PORT="${APP_PORT:-8000}"
if [ "${1:-serve}" = health ]; then
    exec python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$APP_PORT/healthz', timeout=3)"
fi
exec python -m app
