#!/bin/sh
# What every runtime image has: packages, the user functions run as, the directories of the contract.
# Called once by each Dockerfile with the Debian packages of that runtime; leaves no apt leftovers behind.
#
# /davit-site comes from scripts/images.sh and is what this site says about its network; each part is optional:
#   ca-bundle.crt   certificates to trust while building      apt.conf       extra apt settings (proxy, ...)
#   sources.list    replaces the image's package sources
set -eu
site=/davit-site

if [ -s "$site/sources.list" ]; then
    rm -f /etc/apt/sources.list.d/*
    cp "$site/sources.list" /etc/apt/sources.list
fi
if [ -s "$site/apt.conf" ]; then cp "$site/apt.conf" /etc/apt/apt.conf.d/95davit-site; fi
if [ -s "$site/ca-bundle.crt" ]; then
    printf 'Acquire::https::CAInfo "%s/ca-bundle.crt";\n' "$site" > /etc/apt/apt.conf.d/94davit-site-ca
fi

export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q install -y --no-install-recommends ca-certificates tzdata "$@"
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/* /usr/share/doc/* /usr/share/man/* \
    /etc/apt/apt.conf.d/94davit-site-ca /etc/apt/apt.conf.d/95davit-site

# One number everywhere, so that the engine, the agent and a bind mount agree on who the function is.
if ! getent passwd davit > /dev/null; then
    groupadd --gid 993 davit
    useradd --uid 993 --gid 993 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin davit
fi
# /var/task and /tmp get a tmpfs in function containers; /davit is written by builder containers.
mkdir -p /opt/davit /var/task /var/runtime /davit/out /run/davit
chown 993:993 /davit /davit/out /run/davit
# runc up to 1.1 gives a tmpfs the mode of the folder it covers, whatever the mount asks for, and root as owner.
chmod 1777 /var/task
