# tests/test_docker_recipe.py carries these very steps out, without an engine: keep each pip step one RUN.

FROM python:3.13-slim AS builder
WORKDIR /src
COPY . .
# Without isolation setuptools is the pinned one, as everything else is.
RUN pip install --no-cache-dir -c constraints.txt setuptools \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && cp constraints.txt /wheels/

FROM python:3.13-slim
COPY --from=builder /wheels /wheels
RUN pip install --no-cache-dir -c /wheels/constraints.txt "$(echo /wheels/*.whl)[service,analysis,nats,s3]"

# The uid is fixed so that the owner of a mounted /data can be set beforehand.
RUN useradd --uid 65532 --user-group --home-dir /data --shell /usr/sbin/nologin tracesvc \
    && install -d -o 65532 -g 65532 -m 0750 /data
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 7070
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7070/healthz', timeout=4)"]
# The exec form makes tracesvc PID 1, so that it gets the signal to stop.
ENTRYPOINT ["tracesvc"]
CMD ["serve", "--listen", "0.0.0.0:7070", "--data", "/data"]
