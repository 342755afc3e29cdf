# One image for every process; docker-compose.yml says which one it is.
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --system --uid 10001 --create-home gpushopper
WORKDIR /app

COPY requirements/production.txt requirements/
RUN pip install --require-hashes -r requirements/production.txt

COPY manage.py pyproject.toml README.md LICENSE ./
COPY gpushopper gpushopper
COPY rest rest
COPY providers providers
COPY inventory inventory
COPY sessions sessions
COPY costs costs
COPY templates templates
RUN pip install --no-deps --no-build-isolation -e . \
 && SECRET_KEY=build FIELD_ENCRYPTION_KEYS=YnVpbGRidWlsZGJ1aWxkYnVpbGRidWlsZGJ1aWxkYnU= TAG_KEY=build DEPLOYMENT_ID=build \
    DATA_DIR=/tmp python manage.py collectstatic --noinput \
 && mkdir -p /app/data && chown gpushopper /app/data

USER gpushopper
EXPOSE 8080
CMD ["python", "manage.py", "run"]
