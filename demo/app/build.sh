#!/bin/sh
# build.sh OUT VERSION…: OUT/shop-VERSION.jar, runnable, the same classes with another manifest.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$1
shift
java=/usr/share/java
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/classes"
for jar in tomcat10-embed-core tomcat10-annotations-api; do
	(cd "$work/classes" && jar xf "$java/$jar.jar")
done
rm -rf "$work/classes/META-INF"/*.SF "$work/classes/META-INF/MANIFEST.MF" "$work/classes/module-info.class"
javac -nowarn -d "$work/classes" -cp "$java/tomcat10-embed-core.jar:$java/tomcat10-annotations-api.jar" \
	"$here/Shop.java"
for version in "$@"; do
	printf 'Main-Class: demo.Shop\nImplementation-Title: shop\nImplementation-Version: %s\n' "$version" >"$work/manifest"
	jar cfm "$out/shop-$version.jar" "$work/manifest" -C "$work/classes" .
done
