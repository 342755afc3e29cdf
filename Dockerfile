# One image for every process; docker-compose.yml says which one it is. Alone it is the whole service in one:
#   docker run -p 127.0.0.1:8080:8080 -v gpu-shopper:/app/data gpu-shopper
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    MALLOC_ARENA_MAX=2
RUN useradd --system --uid 10001 --create-home gpushopper
WORKDIR /app

COPY requirements/production.txt requirements/
RUN pip install --require-hashes --no-deps -r requirements/production.txt

COPY manage.py pyproject.toml README.md LICENSE ./
COPY gpushopper gpushopper
COPY rest rest
COPY providers providers
COPY inventory inventory
COPY sessions sessions
COPY costs costs
COPY templates templates
# The file system is read-only in production, so what Python compiles, it compiles now.
RUN pip install --no-deps --no-build-isolation -e . \
 && python -m compileall -q . \
 && mkdir -p data && chown gpushopper data

USER gpushopper
# Inside a container the loopback is nobody's: what may reach it, `docker run -p` says.
ENV SERVER_HOST=0.0.0.0
EXPOSE 8080
VOLUME /app/data
CMD ["python", "manage.py", "run"]
