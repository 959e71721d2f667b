# The service in Python, and the load. compose.yaml builds it.
ARG BASE=python:3-slim
FROM ${BASE}
WORKDIR /demo
COPY requirements.txt .
RUN pip install --no-cache-dir --disable-pip-version-check --requirement requirements.txt
COPY app.py load.py ./
ENV HOST=0.0.0.0 PYTHONUNBUFFERED=1
USER 65534
EXPOSE 8080
CMD ["python3", "app.py"]
HEALTHCHECK --interval=1s --timeout=3s --retries=60 \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health')"]
