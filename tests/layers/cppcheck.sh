#!/bin/sh
# cppcheck over src/: warnings, portability and performance are errors. jansson's loops are macros
# that it does not see, so it is told their shape.
set -eu
cd "$1"
exec cppcheck -q -j2 --std=c11 --enable=warning,portability,performance --inline-suppr --error-exitcode=1 \
	--suppress=missingIncludeSystem --suppress=checkersReport -D_GNU_SOURCE -D'BATON_VERSION="0"' \
	-D'json_object_foreach(o,k,v)=for((k)="",(v)=(void*)(o);(v);)' \
	-D'json_array_foreach(a,i,v)=for((i)=0,(v)=(void*)(a);(v);)' -Isrc src
