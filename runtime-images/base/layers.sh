#!/bin/sh
# Layers lie in the function's bundle, below `.opt`; these are the folders of /opt that AWS's runtimes, the loader and the shell look into.
# `LAYER_PARTS` in api/src/spec.rs is the same list. Called once by the Dockerfile of each image that functions run in.
set -eu
for part in bin java lib nodejs php python ruby; do ln -s "/var/task/.opt/$part" "/opt/$part"; done
