#!/usr/bin/env bash
# Makes the pictures of claw-edge's page for operators that the documentation shows, in docs/images,
# with a real browser (Chromium and chromedriver). pngquant makes them small, if it is there.
#
# usage: scripts/screenshots.sh
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh build edge
cargo build --release --locked
export REDIS_CLAW_MODULE=${REDIS_CLAW_MODULE:-$PWD/${CARGO_TARGET_DIR:-target}/release/libredis_claw.so}
SCREENSHOTS=$PWD/docs/images cargo test --locked -p claw-edge --test admin_page -- --ignored screenshots
if command -v pngquant >/dev/null; then
    pngquant --force --ext .png --skip-if-larger 64 docs/images/admin-*.png || true
fi
ls -l docs/images/admin-*.png
