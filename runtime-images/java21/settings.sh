# What Maven has to know of the site: certificates, proxy, mirror. Sourced by the Dockerfile (sh) and by `build`.

# use_site_repository <certificates> <folder>: sets MAVEN_OPTS, and MAVEN_SITE to more of Maven's arguments.
use_site_repository() {
    mkdir -p "$2"
    MAVEN_OPTS="-XX:+UseSerialGC -XX:TieredStopAtLevel=1" MAVEN_SITE=
    if [ -s "$1" ]; then
        java -XX:TieredStopAtLevel=1 -cp /opt/davit/trust Trust "$1" "$2/trust.p12"
        MAVEN_OPTS="$MAVEN_OPTS -Djavax.net.ssl.trustStore=$2/trust.p12 -Djavax.net.ssl.trustStorePassword=changeit"
    fi
    for scheme in http https; do
        proxy=$(printenv "${scheme}_proxy" || printenv "$(echo "${scheme}_proxy" | tr a-z A-Z)" || true)
        proxy=${proxy#*://} proxy=${proxy#*@} proxy=${proxy%/}
        case $proxy in
            *:*) MAVEN_OPTS="$MAVEN_OPTS -D$scheme.proxyHost=${proxy%:*} -D$scheme.proxyPort=${proxy##*:}" ;;
        esac
    done
    if [ -n "${DAVIT_BUILD_MAVEN_MIRROR:-}" ]; then
        printf '<settings><mirrors><mirror><id>site</id><mirrorOf>*</mirrorOf><url>%s</url></mirror></mirrors></settings>\n' \
            "$DAVIT_BUILD_MAVEN_MIRROR" > "$2/settings.xml"
        MAVEN_SITE="-s $2/settings.xml"
    fi
    export MAVEN_OPTS MAVEN_SITE
}
