# The gateway: `suffice serve` in front of other servers. It holds no model and needs no GPU.
#   docker build -t suffice .
#   docker run --rm -v suffice:/data --entrypoint suffice suffice keys create me    # it does not start without a key
#   docker run -v suffice:/data -p 8000:8000 suffice --upstream http://vllm:8000
FROM python:3.12-slim

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt ".[serve,postgresql,redis,otel]" \
    && useradd --create-home --uid 10001 suffice && mkdir /data && chown suffice /data

USER suffice
ENV SUFFICE_SERVE_HOST=0.0.0.0 SUFFICE_SERVE_DATABASE=sqlite:////data/serve.db
VOLUME /data
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=3)"]
# The stop signal is SIGTERM; give the container longer than drain_timeout to end (docker run --stop-timeout 60).
ENTRYPOINT ["suffice", "serve"]
