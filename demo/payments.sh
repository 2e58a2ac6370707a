#!/bin/sh
# The demo's application. It says what it was given, by digest: a value never leaves it.

digest() {
    sha256sum | cut -c 1-16
}

if [ -r /morphisms/secrets/password ]; then
    echo "file password digest $(digest < /morphisms/secrets/password)"
fi
if [ -n "${DB_PASSWORD:-}" ]; then
    echo "variable DB_PASSWORD digest $(printf %s "$DB_PASSWORD" | digest)"
fi
case ${DB_URL:-} in
    *:"$DB_PASSWORD"@*) echo "variable DB_URL holds DB_PASSWORD" ;;
esac
