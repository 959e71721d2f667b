# The service in JavaScript. compose.yaml builds it.
ARG BASE=node:20-slim
FROM ${BASE}
WORKDIR /demo
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY app.mjs ./
ENV HOST=0.0.0.0
USER 65534
EXPOSE 8080
CMD ["node", "app.mjs"]
HEALTHCHECK --interval=1s --timeout=3s --retries=60 \
    CMD ["node", "-e", "fetch('http://127.0.0.1:8080/health').then((a) => process.exit(a.ok ? 0 : 1), () => process.exit(1))"]
